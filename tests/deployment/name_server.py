"""A name server on 127.0.0.1:53 (RFC 1035). It resolves all names under .example to 127.0.0.1."""

import socket
import struct

HEADER = struct.Struct(">HHHHHH")
TYPE_A = 1
NO_ERROR, NO_SUCH_NAME = 0x8180, 0x8183
# The name of the question (a pointer to byte 12), class IN, 60 s, four bytes.
ANSWER = b"\xc0\x0c" + struct.pack(">HHIH", TYPE_A, 1, 60, 4) + bytes([127, 0, 0, 1])


def reply(query: bytes) -> bytes:
    end = query.index(0, HEADER.size) + 1
    name, (kind,) = query[HEADER.size : end], struct.unpack(">H", query[end : end + 2])
    known = name.endswith(b"\x07example\x00")
    answers = ANSWER if known and kind == TYPE_A else b""
    identity = HEADER.unpack(query[: HEADER.size])[0]
    header = HEADER.pack(identity, NO_ERROR if known else NO_SUCH_NAME, 1, 1 if answers else 0, 0, 0)
    return header + query[HEADER.size : end + 4] + answers


if __name__ == "__main__":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        print("ready", flush=True)
        while True:
            query, client = server.recvfrom(512)
            server.sendto(reply(query), client)
