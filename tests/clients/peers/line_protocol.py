"""The line protocol (README.md) of the Python peers."""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator

LONGEST_LINE = 16 * 1024 * 1024


def emit(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def emit_message(data: str | bytes) -> None:
    if isinstance(data, str):
        emit("message", text=data)
    else:
        emit("message", binary=base64.b64encode(data).decode())


def payload(command: dict) -> str | bytes:
    return command["text"] if "text" in command else base64.b64decode(command["binary"])


async def commands() -> AsyncIterator[dict]:
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)
