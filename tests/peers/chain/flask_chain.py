"""As chain.py: Flask with requests, run by gunicorn with synchronous workers, or with gevent's."""
import os
import threading
import time

import requests
from flask import Flask, request

LOG = open(os.environ["CHAIN_LOG"], "a", buffering=1)
UP = os.environ["CHAIN_UP"]
PASSED = ("traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-amzn-trace-id",
          "x-request-id")
app = Flask(__name__)
session = requests.Session()


@app.get("/in/<who>/<int:count>")
def answer(who, count):
    headers = {name: request.headers[name] for name in PASSED if name in request.headers}
    for k in range(count):
        session.get(f"{UP}/out/{who}/{k}", headers=headers, timeout=10)
        LOG.write(f"{who} {k}\n")
    return "ok"


def timer():
    for i in range(10**9):
        time.sleep(0.005)
        requests.get(f"{UP}/bg/{os.getpid()}-{i}", timeout=10)
        LOG.write(f"bg {i}\n")


threading.Thread(target=timer, daemon=True).start()
