"""Flask, run by gunicorn with two workers of four threads."""
import os

from flask import Flask, Response, request

LOG = open(os.environ["PEER_LOG"], "a", buffering=1)
app = Flask(__name__)


@app.after_request
def note(response):
    LOG.write(f"{request.method} {request.path} {response.status_code} {request.environ['REMOTE_PORT']}\n")
    return response


@app.get("/fixed/<int:number>")
def fixed(number):
    return Response(b"x" * number, content_type="text/plain")


@app.get("/chunked/<int:number>")
def chunked(number):
    half = number // 2
    pieces = [piece for piece in (b"x" * half, b"x" * (number - half)) if piece]
    return Response((piece for piece in pieces), content_type="text/plain")


@app.post("/echo")
def echo():
    return Response(request.get_data(), content_type="text/plain")


@app.get("/status/<int:status>")
def status(status):
    return Response(b"" if status in (204, 304) else str(status), status=status)
