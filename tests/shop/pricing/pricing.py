"""Asks PostgreSQL for a price and then the next service; a thread a connection."""
import http.client
import os
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOG = open(os.environ["SHOP_LOG"], "a", buffering=1)
NEXT, ADDRESS = os.environ["SHOP_NEXT"].split("=")
STORE, STORED = os.environ["SHOP_STORE"].split("=")
KEPT = threading.local()


def end(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def message(stream):
    """A message of PostgreSQL's protocol 3: its kind and its content."""
    kind, size = struct.unpack("!cI", stream.read(5))
    return kind, stream.read(size - 4)


def until_ready(stream):
    rows = []
    while True:
        kind, content = message(stream)
        if kind == b"D":
            rows.append(content)
        elif kind == b"E":
            raise RuntimeError(f"PostgreSQL said {content!r}")
        elif kind == b"Z":
            return rows


def price(order):
    with socket.create_connection(end(STORED)) as connection, connection.makefile("rb") as stream:
        start = b"user\0postgres\0database\0postgres\0\0"
        connection.sendall(struct.pack("!II", len(start) + 8, 196608) + start)
        until_ready(stream)
        query = f"select {int(order)} % 90 + 10".encode() + b"\0"
        connection.sendall(b"Q" + struct.pack("!I", len(query) + 4) + query)
        rows = until_ready(stream)
        connection.sendall(b"X" + struct.pack("!I", 4))
    if len(rows) != 1:
        raise RuntimeError(f"PostgreSQL gave {len(rows)} rows")


def ask(path, trace):
    """The next service, over a connection that this thread keeps."""
    if not hasattr(KEPT, "connection"):
        KEPT.connection = http.client.HTTPConnection(*end(ADDRESS))
    KEPT.connection.request("GET", path, headers={"traceparent": trace} if trace else {})
    answer = KEPT.connection.getresponse()
    return answer.status, answer.read()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        order = self.path.removeprefix("/orders/")
        LOG.write(f"{order} {STORE}\n")
        price(order)
        status, body = ask(self.path, self.headers.get("traceparent"))
        LOG.write(f"{order} {NEXT} {status}\n")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


Server(end(os.environ["SHOP_LISTEN"]), Handler).serve_forever()
