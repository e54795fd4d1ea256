"""Sockets used in unusual ways.

`odd.py server MODE HOST PORT LOG`: answers every request with 200 and its path; appends `PATH PID`, PID being the process
that answered. MODE: plain, zerocopy, writev, fastopen, defer, reuseport, rights, inherited, activated.
`odd.py client MODE HOST PORT COUNT`: a connection for each of COUNT requests `GET /MODE/I`, prints what came back.
MODE: plain, zerocopy, writev, fastopen.
"""
import array
import os
import socket
import sys
import threading

ZEROCOPY = (socket.SOL_SOCKET, 60, 1)
MSG_ZEROCOPY, MSG_FASTOPEN = 0x4000000, 0x20000000


def send(sock, data, mode):
    if mode == "zerocopy":
        sock.setsockopt(*ZEROCOPY)
        sent = 0
        while sent < len(data):
            sent += sock.send(data[sent:], MSG_ZEROCOPY)
    elif mode == "writev":
        step = max(1, -(-len(data) // 100))
        sock.sendmsg([data[at:at + step] for at in range(0, len(data), step)])
    else:
        sock.sendall(data)


def serve(sock, mode, log):
    with sock:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                piece = sock.recv(65536)
                if not piece:
                    return
                data += piece
            head, data = data.split(b"\r\n\r\n", 1)
            path = head.split(b" ")[1]
            body = path * 100
            # Before the answer, so that whoever has the answer finds the line.
            log.write(f"{path.decode()} {os.getpid()}\n")
            send(sock, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body), mode)


def accept(listener, mode, log):
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock, mode, log), daemon=True).start()


def listen(mode, host, port):
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if mode == "reuseport":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if mode == "fastopen":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 64)
    if mode == "defer":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    listener.bind((host, port))
    listener.listen(256)
    return listener


def server(mode, host, port, path):
    log = open(path, "a", buffering=1)
    if mode == "reuseport":
        if os.fork():
            os.fork()
        accept(listen(mode, host, port), mode, log)
    elif mode == "rights":
        # The parent accepts, another process answers.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener = listen(mode, host, port)
        if os.fork() == 0:
            listener.close()
            while True:
                _, more, _, _ = theirs.recvmsg(1, socket.CMSG_SPACE(4))
                fds = array.array("i")
                fds.frombytes(more[0][2][:4])
                sock = socket.socket(fileno=fds[0])
                threading.Thread(target=serve, args=(sock, mode, log), daemon=True).start()
        while True:
            sock, _ = listener.accept()
            ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))])
            sock.close()
    elif mode == "inherited":
        # The parent listens, its child accepts.
        listener = listen(mode, host, port)
        if os.fork():
            listener.close()
            os.wait()
        accept(listener, mode, log)
    elif mode == "activated":
        # Over exec, as systemd's socket activation does it.
        listener = listen(mode, host, port)
        os.set_inheritable(listener.fileno(), True)
        os.execv(sys.executable, [sys.executable, __file__, "activated", str(listener.fileno()), path])
    else:
        accept(listen(mode, host, port), mode, log)


def client(mode, host, port, count):
    for i in range(count):
        path = f"/{mode}/{i}".encode()
        request = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            if mode == "fastopen":
                sock.sendto(request, MSG_FASTOPEN, (host, port))
            else:
                sock.connect((host, port))
                send(sock, request, mode)
            data = b""
            while not data.endswith(b"\r\n\r\n" + path * 100):
                piece = sock.recv(65536)
                assert piece, "closed early"
                data += piece
            print(path.decode(), len(path) * 100)


if sys.argv[1] == "server":
    server(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
elif sys.argv[1] == "client":
    client(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
else:
    accept(socket.socket(fileno=int(sys.argv[2])), "activated", open(sys.argv[3], "a", buffering=1))
