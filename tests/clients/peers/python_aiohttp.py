"""A peer for `aiohttp`. Its client offers permessage-deflate; its server accepts it by default."""

import asyncio
import sys
from contextlib import suppress

from aiohttp import ClientError, ClientSession, ClientWebSocketResponse, WSMsgType, web

from line_protocol import commands, emit, emit_message, payload

EXTENSIONS = "Sec-WebSocket-Extensions"


class Peer:
    def __init__(self) -> None:
        self.websocket: ClientWebSocketResponse | web.WebSocketResponse | None = None
        self.receiving: asyncio.Task | None = None
        self.closing: asyncio.Task | None = None

    async def connect(self, url: str) -> None:
        async with ClientSession() as session:
            websocket = await session.ws_connect(url, compress=15)
            # The response is in a private field. There is no public access to its headers.
            await self.converse(websocket, websocket._response.headers.get(EXTENSIONS), None)

    async def accept(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        await self.converse(websocket, websocket.headers.get(EXTENSIONS), request.headers.get(EXTENSIONS))
        return websocket

    async def converse(self, websocket, agreed: str | None, offer: str | None) -> None:
        self.websocket, self.closing = websocket, None
        emit("open", offer=offer, extensions=agreed)
        reason = None
        self.receiving = asyncio.create_task(receive(websocket))
        with suppress(asyncio.CancelledError):
            reason = await self.receiving
        if self.closing:
            await self.closing
        exception = websocket.exception()
        emit("close", code=websocket.close_code, reason=reason, clean=None, message=exception and repr(exception))

    async def close(self, code: int | None, reason: str) -> None:
        # If a server is closed while another task waits in receive(), it hangs up after its Close frame and does not
        # read the answer. Most servers close between two receive() of their handler. A client that is cancelled in
        # receive() does not wait for the answer, either, but another task may close it.
        if isinstance(self.websocket, web.WebSocketResponse):
            self.receiving.cancel()
            await asyncio.wait({self.receiving})
        await self.websocket.close(code=code, message=reason.encode())

    async def obey(self, command: dict) -> None:
        try:
            match command["do"]:
                case "connect":
                    await self.connect(command["url"])
                case "send":
                    await self.send(payload(command), command.get("fragments", 1))
                case "close":
                    self.closing = asyncio.create_task(self.close(command["code"], command["reason"]))
        except (ClientError, TypeError, OSError) as error:
            emit("refused", error=f"{type(error).__name__}: {error}")

    async def send(self, data: str | bytes, fragments: int) -> None:
        if fragments > 1:
            # aiohttp has no such parameter, and raises the error itself.
            await self.websocket.send_frame(b"", WSMsgType.TEXT, fin=False)
        elif isinstance(data, str):
            await self.websocket.send_str(data)
        else:
            await self.websocket.send_bytes(data)


async def receive(websocket) -> str | None:
    """Reports messages up to the last one, and returns the reason of the received Close frame, if any."""
    while (message := await websocket.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
        emit_message(message.data)
    return message.extra if message.type is WSMsgType.CLOSE else None


async def listen(peer: Peer) -> int:
    application = web.Application()
    application.router.add_get("/{path:.*}", peer.accept)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner.addresses[0][1]


async def main(role: str) -> None:
    peer = Peer()
    if role == "server":
        emit("ready", port=await listen(peer))
    else:
        emit("ready")
    tasks = [asyncio.create_task(peer.obey(command)) async for command in commands()]
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
