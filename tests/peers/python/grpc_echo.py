"""A unary echo without generated code: `grpc_echo.py server PORT`, `grpc_echo.py client PORT COUNT`."""
import sys
from concurrent import futures

import grpc

NAME = "/peer.Echo/Say"

if sys.argv[1] == "server":

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(lambda request, _: request) if details.method == NAME else None

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), handlers=(Handler(),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[2]}")
    server.start()
    server.wait_for_termination()
else:
    with grpc.insecure_channel(f"127.0.0.1:{sys.argv[2]}") as channel:
        say = channel.unary_unary(NAME)
        for i in range(int(sys.argv[3])):
            assert say(b"GET / HTTP/1.1\r\n\r\n" * i) == b"GET / HTTP/1.1\r\n\r\n" * i
