"""A closewatch in a process of its own: its ports, its metrics, its records."""

import asyncio
import json
import os
import re
import signal
import urllib.request
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from libraries import TARGET

DEADLINE_SECONDS = 15
POLL_SECONDS = 0.01

# Values by family and labels; the label `route` is left out, everything here is the default route's.
Counts = dict[tuple[str, frozenset[tuple[str, str]]], float]

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ClosewatchFailure(Exception):
    """closewatch did not start, did not answer, or never came to tell what was waited for."""


def binary() -> Path | None:
    """The program under test: CLOSEWATCH_BIN, or the newest build."""
    if chosen := os.environ.get("CLOSEWATCH_BIN"):
        return Path(chosen).resolve()
    built = [path for profile in ("debug", "release") if (path := TARGET / profile / "closewatch").exists()]
    return max(built, key=lambda path: path.stat().st_mtime, default=None)


def labels(**values: object) -> frozenset[tuple[str, str]]:
    return frozenset((name, str(value)) for name, value in values.items())


class Closewatch:
    def __init__(self, process: asyncio.subprocess.Process, url: str, admin: str) -> None:
        self.url = url
        self._process = process
        self._admin = admin
        self._last_session: str | None = None
        self._lines: deque[str] = deque(maxlen=20)
        self._reading = asyncio.create_task(self._read_lines())

    @classmethod
    async def start(cls, program: Path, upstream: str, directory: Path) -> "Closewatch":
        arguments = ("--listen", "127.0.0.1:0", "--upstream", upstream, "--admin", "127.0.0.1:0")
        with (directory / "closewatch.stdout").open("ab") as stdout:
            process = await asyncio.create_subprocess_exec(
                program,
                "run",
                *arguments,
                # Away from the repository, whose config.yaml would be read.
                cwd=directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=asyncio.subprocess.PIPE,
            )
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return cls(process, *await _addresses(process))
        except BaseException:
            process.kill()
            raise

    async def counts(self) -> Counts:
        return parse(await self.metrics())

    async def metrics(self) -> str:
        return await self._get("/metrics")

    async def next_record(self) -> dict:
        """The record of the one session that has ended since the last call."""

        async def newest() -> dict | None:
            records = json.loads(await self._get("/api/v1/closes?limit=1"))
            return records[0] if records and records[0]["session"] != self._last_session else None

        record = await eventually(newest, "a new record in /api/v1/closes")
        self._last_session = record["session"]
        return record

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            raise ClosewatchFailure(f"still running {DEADLINE_SECONDS} s after SIGTERM, with no session open") from None

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    @property
    def last_lines(self) -> str:
        return "".join(self._lines)

    async def _read_lines(self) -> None:
        while line := await self._process.stderr.readline():
            self._lines.append(line.decode(errors="replace"))

    async def _get(self, path: str) -> str:
        def read() -> str:
            with _direct.open(self._admin + path, timeout=DEADLINE_SECONDS) as response:
                return response.read().decode()

        return await asyncio.to_thread(read)


async def eventually(probe: Callable, wanted: str) -> Any:
    """Asks again and again until the answer is there."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not (answer := await probe()):
                await asyncio.sleep(POLL_SECONDS)
            return answer
    except TimeoutError:
        raise ClosewatchFailure(f"waited {DEADLINE_SECONDS} s in vain for {wanted}") from None


def parse(exposition: str) -> Counts:
    counts: Counts = {}
    for line in exposition.splitlines():
        if match := _SAMPLE.match(line):
            name, label_text, value = match.groups()
            key = frozenset(pair for pair in _LABEL.findall(label_text or "") if pair[0] != "route")
            counts[name, key] = counts.get((name, key), 0.0) + float(value)
    return counts


def total(counts: Counts, family: str, **having: object) -> float:
    return sum(value for (name, key), value in counts.items() if name == family and labels(**having) <= key)


async def _addresses(process: asyncio.subprocess.Process) -> tuple[str, str]:
    printed, url, admin = [], None, None
    while not (url and admin):
        line = (await process.stderr.readline()).decode()
        if not line:
            raise ClosewatchFailure("did not start:\n" + "".join(printed))
        printed.append(line)
        if match := re.search(r"listening on (ws://\S+)", line):
            url = match[1]
        if match := re.search(r"admin on (http://\S+)", line):
            admin = match[1].rstrip("/")
    return url, admin
