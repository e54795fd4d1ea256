"""FastAPI, run by uvicorn."""
import os

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

LOG = open(os.environ["PEER_LOG"], "a", buffering=1)
app = FastAPI()


@app.middleware("http")
async def note(request: Request, follow):
    response = await follow(request)
    LOG.write(f"{request.method} {request.url.path} {response.status_code} {request.client.port}\n")
    return response


@app.get("/fixed/{number}")
async def fixed(number: int):
    return Response(b"x" * number, media_type="text/plain")


@app.get("/chunked/{number}")
async def chunked(number: int):
    async def pieces():
        half = number // 2
        for piece in (b"x" * half, b"x" * (number - half)):
            if piece:
                yield piece

    return StreamingResponse(pieces(), media_type="text/plain")


@app.post("/echo")
async def echo(request: Request):
    return Response(await request.body(), media_type="text/plain")


@app.get("/status/{status}")
async def status(status: int):
    return Response(b"" if status in (204, 304) else str(status), status_code=status)
