"""aiohttp's client."""
import asyncio
import sys

import aiohttp

base, count = sys.argv[1], int(sys.argv[2])
statuses = (200, 404, 500, 503, 204, 304)


async def main():
    async with aiohttp.ClientSession() as session:

        async def show(method, path, **more):
            async with session.request(method, base + path, allow_redirects=False, **more) as answer:
                print(method, path, answer.status, len(await answer.read()))

        for i in range(count):
            await show("GET", f"/fixed/{i}")
            await show("GET", f"/chunked/{i}")
            await show("POST", "/echo", data=b"y" * (i + 1))
            await show("GET", f"/status/{statuses[i % 6]}")


asyncio.run(main())
