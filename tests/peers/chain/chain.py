"""Applications that call others to answer: `chain.py KIND PORT LOG UP`.

`GET /in/ID/N` asks `UP/out/ID/0` to `UP/out/ID/N-1`, and a line `ID K` is written to LOG for each: that is the truth.
What a timer asks by itself is `UP/bg/I`, with a line `bg I`. Headers that name traces and requests are passed on as
they came.
"""
import asyncio
import queue
import selectors
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KIND, PORT, LOG, UP = sys.argv[1], int(sys.argv[2]), open(sys.argv[3], "a", buffering=1), sys.argv[4]
PASSED = {"traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-amzn-trace-id",
          "x-request-id"}


def passed(headers):
    return {name: value for name, value in headers.items() if name.lower() in PASSED}


def ask(who, k, headers):
    with urllib.request.urlopen(urllib.request.Request(f"{UP}/out/{who}/{k}", headers=headers)) as response:
        response.read()
    LOG.write(f"{who} {k}\n")


def timer():
    for i in range(10**9):
        time.sleep(0.005)
        with urllib.request.urlopen(f"{UP}/bg/{i}") as response:
            response.read()
        LOG.write(f"bg {i}\n")


POOL = ThreadPoolExecutor(8)
LATER = queue.Queue()


def flush():
    """A thread that sends what others have left for it."""
    while True:
        batch = [LATER.get()]
        time.sleep(0.01)
        while not LATER.empty():
            batch.append(LATER.get())
        for job in batch:
            ask(*job)


def threads(jobs):
    for job in jobs:
        ask(*job)


def instrumented(jobs):
    """With spans of its own: each call's is written down beside the call."""
    for who, k, headers in jobs:
        inside = TRACER.start_as_current_span("in", context=propagate.extract(headers), kind=trace.SpanKind.SERVER)
        with inside, TRACER.start_as_current_span("out", kind=trace.SpanKind.CLIENT) as span:
            own = {}
            propagate.inject(own)
            ask(who, k, own)
            ids = span.get_span_context()
            LOG.write(f"span {who} {k} {ids.trace_id:032x} {ids.span_id:016x}\n")


def pool(jobs):
    for done in [POOL.submit(ask, *job) for job in jobs]:
        done.result()


def batch(jobs):
    for job in jobs:
        LATER.put(job)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        _, _, who, count = self.path.split("/")
        {"threads": threads, "pool": pool, "batch": batch, "sdk": instrumented}[KIND]([(who, k, passed(self.headers)) for k in range(int(count))])
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


async def asynchronous():
    from aiohttp import ClientSession, TCPConnector, web

    async with ClientSession(connector=TCPConnector(limit=32)) as session:
        async def get(path, headers):
            async with session.get(UP + path, headers=headers) as response:
                await response.read()

        async def answer(request):
            who, count = request.match_info["who"], int(request.match_info["count"])
            for k in range(count):
                await get(f"/out/{who}/{k}", passed(request.headers))
                LOG.write(f"{who} {k}\n")
            return web.Response(text="ok")

        async def tick():
            for i in range(10**9):
                await asyncio.sleep(0.005)
                await get(f"/bg/{i}", {})
                LOG.write(f"bg {i}\n")

        app = web.Application()
        app.router.add_get("/in/{who}/{count}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", PORT).start()
        await tick()


if KIND == "aiohttp":
    asyncio.run(asynchronous())
elif KIND == "aiohttp-poll":
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.PollSelector())) as runner:
        runner.run(asynchronous())
else:
    if KIND == "sdk":
        from opentelemetry import propagate, trace
        from opentelemetry.sdk.trace import TracerProvider

        trace.set_tracer_provider(TracerProvider())
        TRACER = trace.get_tracer("chain")
    threading.Thread(target=timer, daemon=True).start()
    threading.Thread(target=flush, daemon=True).start()
    Server(("127.0.0.1", PORT), Handler).serve_forever()
