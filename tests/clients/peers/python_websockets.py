"""A peer for Python `websockets` with its defaults: it offers and accepts permessage-deflate."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, WebSocketException

from line_protocol import commands, emit, emit_message, payload


class Peer:
    def __init__(self) -> None:
        self.connection: Connection | None = None

    async def converse(self, connection: Connection) -> None:
        self.connection = connection
        emit(
            "open",
            offer=connection.request.headers.get("Sec-WebSocket-Extensions"),
            extensions=connection.response.headers.get("Sec-WebSocket-Extensions"),
        )
        try:
            while True:
                emit_message(await connection.recv())
        except ConnectionClosed as closed:
            emit(
                "close",
                code=connection.close_code,
                reason=connection.close_reason,
                clean=closed.rcvd is not None and closed.sent is not None,
                message=str(closed),
            )

    async def obey(self, command: dict) -> None:
        try:
            match command["do"]:
                case "connect":
                    await self.converse(await connect(command["url"], proxy=None))
                case "send":
                    await self.connection.send(pieces(command))
                case "close":
                    await self.connection.close(command["code"], command["reason"])
        except (WebSocketException, OSError) as error:
            emit("refused", error=f"{type(error).__name__}: {error}")


def pieces(command: dict) -> str | bytes | list:
    data = payload(command)
    count = command.get("fragments", 1)
    if count == 1:
        return data
    size = len(data) // count + 1
    return [data[start : start + size] for start in range(0, len(data), size)]


async def main(role: str) -> None:
    peer = Peer()
    if role == "server":
        server = await serve(peer.converse, "127.0.0.1", 0)
        emit("ready", port=server.sockets[0].getsockname()[1])
    else:
        emit("ready")
    tasks = [asyncio.create_task(peer.obey(command)) async for command in commands()]
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
