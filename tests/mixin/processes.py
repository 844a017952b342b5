"""Programs in processes of their own, each on a free port of the loopback; none outlives the block that began it."""

import json
import os
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

DEADLINE_SECONDS = 30
POLL_SECONDS = 0.05

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failure(Exception):
    """What was waited for never came, or a program did not start."""


class Process:
    """A program that says on standard error where it listens."""

    def __init__(self, stack: ExitStack, directory: Path, name: str, *command: str | Path) -> None:
        self.name = name
        self._log = directory / f"{name}.log"
        with self._log.open("wb") as log:
            # A directory of its own: closewatch would read a config.yaml that lies in the working directory.
            self.process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        stack.callback(self.kill)

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        self.process.kill()
        self.process.wait()

    def said(self, pattern: str) -> str:
        """What the first group of the pattern is in the program's output, as soon as it is there."""

        def look() -> str | None:
            if match := re.search(pattern, self._log.read_text(errors="replace")):
                return match[1]
            if self.process.poll() is not None:
                raise Failure(f"{self.name} ended:\n{self._log.read_text(errors='replace')[-3000:]}")
            return None

        return eventually(look, f"{self.name} to say {pattern}")


class Closewatch(Process):
    def __init__(self, stack: ExitStack, directory: Path, name: str, *arguments: str | Path) -> None:
        ports = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
        super().__init__(stack, directory, name, os.environ["CLOSEWATCH_BIN"], *arguments, *ports)
        self.public = self.said(r"listening on ws://(\S+)\n")
        self.admin = self.said(r"admin on http://(\S+)\n")

    def metrics(self) -> str:
        return fetch(f"http://{self.admin}/metrics")

    def control(self, path: str) -> None:
        """One of the requests that need `control: true`."""
        fetch(f"http://{self.admin}{path}", body={})


def fetch(url: str, body: object = None) -> str:
    """The answer to a GET, or to a POST of JSON; whatever status it has."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"} if data else {})
    try:
        with _direct.open(request, timeout=DEADLINE_SECONDS) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode(errors="replace")
    except OSError as error:
        raise Failure(f"{url}: {error}") from error


def eventually(probe: Callable[[], Any], wanted: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """Asks again and again until the answer is there."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds} s in vain for {wanted}")
        time.sleep(POLL_SECONDS)
    return answer


def temporary_directory(stack: ExitStack) -> Path:
    return Path(
        stack.enter_context(tempfile.TemporaryDirectory(prefix="closewatch-mixin-", ignore_cleanup_errors=True))
    )
