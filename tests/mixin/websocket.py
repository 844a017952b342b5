"""A WebSocket client that is as rude as it is told to be."""

import socket
import struct

PATIENCE_SECONDS = 20
TEXT, CLOSE = 0x81, 0x88


class Client:
    """One session with the server at `host:port`."""

    def __init__(self, address: str, path: str = "/") -> None:
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self._socket.recv(1)
            if not byte:
                raise ConnectionError(f"the connection ended inside the answer's head: {head!r}")
            head += byte
        self.status = int(head.split(b" ", 2)[1])

    def say(self, text: str, *, masked: bool = True) -> None:
        self._frame(TEXT, text.encode(), masked=masked)

    def close(self, code: int) -> None:
        """A Close frame; the connection stays."""
        self._frame(CLOSE, struct.pack(">H", code))

    def await_close(self) -> None:
        """Until the other side's Close frame begins; nothing else may come first."""
        assert self._socket.recv(1) == bytes([CLOSE])

    def read_to_end(self) -> None:
        """Until the other side has hung up."""
        try:
            while self._socket.recv(65536):
                pass
        except ConnectionResetError:
            pass

    def hang_up(self) -> None:
        """FIN."""
        self._socket.close()

    def reset(self) -> None:
        """RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _frame(self, first_byte: int, payload: bytes, *, masked: bool = True) -> None:
        assert len(payload) < 126
        header = struct.pack("BB", first_byte, len(payload) | (0x80 if masked else 0))
        # The key 0 leaves the payload as it is.
        self._socket.sendall(header + (bytes(4) if masked else b"") + payload)
