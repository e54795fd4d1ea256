"""http.server, a thread a connection."""
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOG = open(sys.argv[2], "a", buffering=1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, status, body, chunked=False):
        self.send_response(status)
        if status not in (204, 304):
            self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body)))))
        self.end_headers()
        if status not in (204, 304):
            if chunked:
                half = len(body) // 2
                for piece in (body[:half], body[half:], b""):
                    if piece:
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
            else:
                self.wfile.write(body)
        LOG.write(f"{self.command} {self.path} {status} {self.client_address[1]}\n")

    def do_GET(self):
        _, kind, number = self.path.split("/")
        if kind == "status":
            self.answer(int(number), number.encode())
        else:
            self.answer(200, b"x" * int(number), chunked=kind == "chunked")

    def do_POST(self):
        self.answer(200, self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
