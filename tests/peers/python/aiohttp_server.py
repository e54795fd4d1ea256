"""aiohttp's server."""
import sys

from aiohttp import web

LOG = open(sys.argv[2], "a", buffering=1)


@web.middleware
async def note(request, handler):
    response = await handler(request)
    port = request.transport.get_extra_info("peername")[1]
    LOG.write(f"{request.method} {request.path} {response.status} {port}\n")
    return response


async def fixed(request):
    return web.Response(body=b"x" * int(request.match_info["number"]))


async def chunked(request):
    number = int(request.match_info["number"])
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    half = number // 2
    for piece in (b"x" * half, b"x" * (number - half)):
        if piece:
            await response.write(piece)
    await response.write_eof()
    return response


async def echo(request):
    return web.Response(body=await request.read())


async def status(request):
    number = int(request.match_info["number"])
    return web.Response(status=number, body=None if number in (204, 304) else str(number))


app = web.Application(middlewares=[note])
app.add_routes([
    web.get("/fixed/{number}", fixed),
    web.get("/chunked/{number}", chunked),
    web.post("/echo", echo),
    web.get("/status/{number}", status),
])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
