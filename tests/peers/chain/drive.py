"""Asks for chains: `drive.py BASE COUNT AT_ONCE FAN HEADERS`, `GET /in/ID/FAN` for each ID below COUNT."""
import asyncio
import sys
import uuid

from aiohttp import ClientSession, TCPConnector

BASE, COUNT, AT_ONCE, FAN, HEADERS = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]


def headers(i):
    trace, span = f"{i + 1:032x}", f"{i + 1:016x}"
    return {
        "none": {},
        "traceparent": {"traceparent": f"00-{trace}-{span}-01"},
        "b3": {"b3": f"{trace}-{span}-1"},
        "b3-multi": {"X-B3-TraceId": trace, "X-B3-SpanId": span, "X-B3-Sampled": "1"},
        "amazon": {"X-Amzn-Trace-Id": f"Root=1-{trace[:8]}-{trace[8:]};Parent={span};Sampled=1"},
        "request-id": {"X-Request-Id": str(uuid.UUID(int=i + 1))},
        "same": {"traceparent": f"00-{1:032x}-{1:016x}-01"},
    }[HEADERS]


async def main():
    todo = iter(range(COUNT))
    async with ClientSession(connector=TCPConnector(limit=AT_ONCE)) as session:
        async def work():
            for i in todo:
                async with session.get(f"{BASE}/in/{i}/{FAN}", headers=headers(i)) as response:
                    assert response.status == 200 and await response.text() == "ok"
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))


asyncio.run(main())
