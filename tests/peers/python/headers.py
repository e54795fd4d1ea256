"""A TCP client that writes its own IPv6 packets: `headers.py HOST PORT PATH CHAIN...`, from an address of this host's own.

For each CHAIN, ten at most (types of extension headers joined by commas: 0 hop-by-hop options, 43 routing, 44 a fragment that is the
whole packet, 60 destination options; `-`: none) a connection, with one segment behind these headers: `GET PATH`. Prints
`CHAIN N`, N being how many of its bytes the server's TCP took. The kernel knows of none of these connections: its resets
must not get out.
"""
import socket
import struct
import sys

OPTIONS = bytes([0, 1, 4, 0, 0, 0, 0])
BODIES = {0: OPTIONS, 60: OPTIONS, 43: bytes([0, 253, 0, 0, 0, 0, 0]), 44: bytes([0, 0, 0, 1, 2, 3, 4])}
ACK, PSH, SYN = 16, 8, 2


def summed(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


class Client:
    def __init__(self, host, port):
        self.address, self.host, self.server = socket.inet_pton(socket.AF_INET6, host), host, port
        self.out = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.back = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_TCP)
        self.back.bind((host, 0))
        self.back.settimeout(10)

    def send(self, port, flags, seq, ack, data=b"", chain=()):
        tcp = struct.pack(">HHIIBBHHH", port, self.server, seq, ack, 5 << 4, flags, 65535, 0, 0) + data
        pseudo = self.address * 2 + struct.pack(">II", len(tcp), 6)
        tcp = tcp[:16] + struct.pack(">H", summed(pseudo + tcp)) + tcp[18:]
        types = [*chain, 6]
        headers = b"".join(bytes([types[at + 1]]) + BODIES[kind] for at, kind in enumerate(chain))
        size = len(headers) + len(tcp)
        packet = struct.pack(">IHBB", 6 << 28, size, types[0], 64) + self.address * 2 + headers + tcp
        self.out.sendto(packet, (self.host, 0))

    def hear(self, port):
        """Sequence and acknowledgement number of the server's next packet; none when it is silent."""
        while True:
            try:
                packet = self.back.recv(65536)
            except TimeoutError:
                return None
            if struct.unpack(">HH", packet[:4]) == (self.server, port):
                return struct.unpack(">II", packet[4:12])

    def ask(self, port, path, chain):
        request = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        self.back.settimeout(10)
        self.send(port, SYN, 1000, 0)
        seq, _ = self.hear(port)
        self.send(port, ACK, 1001, seq + 1 & 0xFFFFFFFF)
        self.send(port, ACK | PSH, 1001, seq + 1 & 0xFFFFFFFF, request, chain)
        # What is taken is acknowledged at once, or with the answer.
        self.back.settimeout(0.5)
        heard = self.hear(port)
        return 0 if heard is None else heard[1] - 1001


def main():
    host, port, path, *chains = sys.argv[1:]
    client = Client(host, int(port))
    # Connections are left open: paths of other lengths have other ports.
    first = 40000 + len(path) % 10 * 10
    for at, chain in enumerate(chains):
        kinds = [] if chain == "-" else [int(kind) for kind in chain.split(",")]
        print(chain, client.ask(first + at, path, kinds), flush=True)


main()
