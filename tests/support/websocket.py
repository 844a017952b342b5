"""A raw WebSocket client: it controls every byte, FIN and RST."""

import socket
import struct

from closewatch import PATIENCE_SECONDS

TEXT, CLOSE = 0x81, 0x88
# RFC 6455, section 1.3.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
_END_OF_HEAD = b"\r\n\r\n"


def receive_head(connection: socket.socket) -> bytes:
    """Reads the head of a request or of a response, and no byte behind it."""
    head = b""
    while not head.endswith(_END_OF_HEAD):
        seen = head + connection.recv(4096, socket.MSG_PEEK)
        if seen == head:
            raise ConnectionError(f"the connection ended inside a head: {head!r}")
        before, end, _ = seen.partition(_END_OF_HEAD)
        head += connection.recv(len(before + end) - len(head))
    return head


class Client:
    """One session with the server at `host:port`."""

    def __init__(self, address: str, path: str = "/") -> None:
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()
        )

    def receive_status(self) -> int:
        """Reads the head of the response, and returns its status."""
        return int(receive_head(self.socket).split(b" ", 2)[1])

    def say(self, text: str, *, masked: bool = True) -> None:
        self._send_frame(TEXT, text.encode(), masked=masked)

    def close(self, code: int) -> None:
        """Sends a Close frame. The connection stays."""
        self._send_frame(CLOSE, struct.pack(">H", code))

    def await_close(self) -> None:
        """Reads the first byte of a Close frame, without a byte before it."""
        assert self.socket.recv(1) == bytes([CLOSE])

    def read_to_end(self) -> None:
        """Reads until FIN or RST."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass

    def finish(self) -> None:
        """Sends FIN. The other direction stays open."""
        self.socket.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        """Closes the connection."""
        self.socket.close()

    def reset(self) -> None:
        """Sends RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _send_frame(self, first_byte: int, payload: bytes, *, masked: bool = True) -> None:
        assert len(payload) < 126
        header = struct.pack("BB", first_byte, len(payload) | (0x80 if masked else 0))
        # A masking key of 0 leaves the payload unchanged.
        self.socket.sendall(header + (bytes(4) if masked else b"") + payload)
