"""A real client or server as a process, controlled by the line protocol of peers/README.md."""

import asyncio
import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from libraries import Library

# A passing test never waits this long.
DEADLINE_SECONDS = 30
LONGEST_LINE = 16 * 1024 * 1024


class PeerFailure(Exception):
    """A peer reported another event than the expected one, or none."""


class Peer:
    """One peer. It leads a process group, so that the processes that it starts (Chromium's) end with it."""

    def __init__(self, library: Library, role: str, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.library = library
        self.role = role
        self.port: int | None = None
        self._process = process
        self._errors = errors

    @classmethod
    async def start(cls, library: Library, role: str, directory: Path) -> "Peer":
        errors = directory / f"{role}-{library.name}.stderr"
        with errors.open("ab") as stderr:
            process = await _spawn(library.program, role, directory, stderr)
        peer = cls(library, role, process, errors)
        try:
            peer.port = (await peer.expect("ready")).get("port")
        except BaseException:
            await peer.end()
            raise
        return peer

    async def do(self, command: str, **arguments: object) -> None:
        self._process.stdin.write(json.dumps({"do": command, **arguments}).encode() + b"\n")
        await self._process.stdin.drain()

    async def expect(self, *wanted: str) -> dict:
        """The next event, which must be one of `wanted`."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise self._failure(f"reported nothing in {DEADLINE_SECONDS} s", wanted) from None
        if not line:
            raise self._failure("ended", wanted)
        event = json.loads(line)
        if event["event"] not in wanted:
            raise self._failure(f"reported {line.decode().strip()[:300]}", wanted)
        return event

    async def end(self) -> None:
        """Sends SIGKILL to the whole group, like a crash. No process is left."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    def _failure(self, instead: str, wanted: tuple[str, ...]) -> PeerFailure:
        errors = self._errors.read_text(errors="replace").strip()[-2000:]
        message = f"{self.library.name} ({self.role}) {instead} instead of `{' or '.join(wanted)}`"
        return PeerFailure(f"{message}; its standard error:\n{errors}" if errors else message)


async def _spawn(program: tuple[str, ...], role: str, directory: Path, stderr: BinaryIO) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *program,
        role,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        env=os.environ | {"TMPDIR": str(directory)},
        limit=LONGEST_LINE,
        start_new_session=True,
    )
