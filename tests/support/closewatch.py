"""The support of all tests in Python: closewatch as a process, its metrics and records, commands, and the report.

As a program it prints the response to a GET request, so that a test can send one from another network namespace:

    python3 closewatch.py URL
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# A test fails if it waits longer than this for anything. A passing test never waits this long.
PATIENCE_SECONDS = 30
POLL_SECONDS = 0.02
# The configuration that logs each record as a line of JSON.
LOG_ALL = {"format": "json", "sessions": "all", "max_per_second": 1000000}

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failure(Exception):
    """A check that failed, with a message for people."""


# --- checks -----------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """The results of the checks, printed as they come."""

    passed: int = 0
    failed: int = 0

    @contextlib.contextmanager
    def check(self, title: str) -> Iterator[None]:
        """One check. It fails if its body raises an exception."""
        began = time.monotonic()
        try:
            yield
        except (Failure, AssertionError) as failure:
            self._fail(title, str(failure) or traceback.format_exc())
        except Exception:
            self._fail(title, traceback.format_exc())
        else:
            self.passed += 1
            seconds = time.monotonic() - began
            print(f"ok    {title}" + (f" ({seconds:.1f} s)" if seconds >= 0.1 else ""), flush=True)

    def check_equal(self, title: str, found: object, expected: object) -> None:
        """One check of a value."""
        with self.check(title):
            expect_equal(found, expected, title)

    def finish(self) -> int:
        """Prints the last line, and returns the exit code."""
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed or not self.passed else 0

    def _fail(self, title: str, why: str) -> None:
        self.failed += 1
        print(f"FAIL  {title}\n      " + why.strip().replace("\n", "\n      "), flush=True)


def expect(condition: object, fault: str) -> None:
    """Fails unless the condition holds."""
    if not condition:
        raise Failure(fault)


def expect_equal(found: object, expected: object, name: str) -> None:
    """Fails unless both values are equal."""
    expect(found == expected, f"{name}\n  is        {found!r}\n  should be {expected!r}")


def eventually(wanted: str, probe: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Asks again until the answer is true, and returns it."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        expect(time.monotonic() < deadline, f"not within {seconds} s: {wanted}")
        time.sleep(POLL_SECONDS)
    return answer


# --- commands ---------------------------------------------------------------------------------------------------------


def run(*command: object, timeout: float = 60, **options: Any) -> str:
    """Runs a command and returns its standard output. Fails with the whole output unless the command succeeds."""
    status, output, errors = status_of(*command, timeout=timeout, **options)
    expect(status == 0, f"{' '.join(map(str, command))}\nended with {status}:\n{output}{errors}")
    return output


def status_of(*command: object, timeout: float = 60, **options: Any) -> tuple[int, str, str]:
    """Runs a command and returns its exit code, standard output and standard error."""
    options = {"cwd": ROOT} | options
    if "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, **options)
    except subprocess.TimeoutExpired as expired:
        raise Failure(f"{' '.join(words)}\ntook longer than {timeout} s:\n{expired.stdout}") from None
    return done.returncode, done.stdout, done.stderr


@cache
def target_directory() -> Path:
    """The directory that cargo builds in."""
    metadata = run("cargo", "metadata", "--locked", "--no-deps", "--format-version", "1")
    return Path(json.loads(metadata)["target_directory"])


@cache
def binary(profile: str) -> Path:
    """The program under test: `CLOSEWATCH_BIN`, or else a `debug` or `release` build."""
    if named := os.environ.get("CLOSEWATCH_BIN"):
        return Path(named).resolve()
    return build(profile)


def build(profile: str) -> Path:
    """Builds closewatch, and returns the program."""
    release = ["--release"] if profile == "release" else []
    run("cargo", "build", "--locked", "--bin", "closewatch", *release, timeout=900)
    return target_directory() / profile / "closewatch"


# --- processes --------------------------------------------------------------------------------------------------------


class Process:
    """A program in the directory `directory`. It is killed at the end of the `with` block."""

    def __init__(self, directory: Path, name: str, *command: object) -> None:
        self.name = name
        self.stdout, self.stderr = directory / f"{name}.stdout", directory / f"{name}.stderr"
        words = [str(word) for word in command]
        with self.stdout.open("wb") as stdout, self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                words, cwd=directory, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
            )

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Sends SIGKILL, and waits for the end."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """Sends SIGTERM, waits for the end, and returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Waits for the end, and returns the exit code."""
        try:
            return self.process.wait(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} still runs after {PATIENCE_SECONDS} s:\n{self.output}") from None

    def printed(self, pattern: str) -> str:
        """Waits for a match in standard error, and returns its first group."""

        def search() -> str | None:
            has_ended = self.process.poll() is not None
            if match := re.search(pattern, self.stderr.read_text(errors="replace")):
                return match[1]
            expect(not has_ended, f"{self.name} ended:\n{self.output}")
            return None

        try:
            return eventually(f"{self.name} prints {pattern}", search)
        except BaseException:
            self.kill()
            raise

    @property
    def output(self) -> str:
        """The last output, for messages."""
        return "".join(file.read_text(errors="replace")[-3000:] for file in (self.stdout, self.stderr))


class Closewatch(Process):
    """closewatch on ports of the kernel's choice, with a configuration or with arguments."""

    def __init__(
        self,
        directory: Path,
        program: Path,
        *arguments: object,
        configuration: dict | None = None,
        name: str = "closewatch",
    ) -> None:
        if configuration is not None:
            # JSON is YAML. The name differs from config.yaml, the default of every closewatch in this directory.
            file = directory / f"{name}.yaml"
            file.write_text(json.dumps(configuration))
            arguments = ("run", "--config", file)
        super().__init__(directory, name, program, *arguments, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
        self.public = self.printed(r"listening on ws://(\S+)\n")
        self.admin = self.printed(r"admin on http://(\S+)\n")

    def get(self, path: str) -> str:
        return fetch(f"http://{self.admin}{path}")

    def post(self, path: str) -> str:
        """One of the requests that need `admin.control`."""
        return fetch(f"http://{self.admin}{path}", body={})

    def phase(self) -> str:
        """The phase that `/-/ready` reports."""
        return fetch(f"http://{self.admin}/-/ready", any_status=True).strip()

    def scrape(self) -> "Scrape":
        return Scrape(self.get("/metrics"))

    def closes(self, limit: int) -> list[dict]:
        """The last records of the API, the newest first."""
        return json.loads(self.get(f"/api/v1/closes?limit={limit}"))

    def logged_records(self) -> list[dict]:
        """The records in the log, the oldest first. Every line of the log is JSON."""
        with self.stdout.open() as log:
            return [line for line in map(json.loads, log) if line["event"] == "session_closed"]


def fetch(url: str, body: object = None, *, any_status: bool = False) -> str:
    """The response body of a GET request, or of a POST request with JSON. A status of 400 or above is a failure."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"} if data else {})
    try:
        with _direct.open(request, timeout=PATIENCE_SECONDS) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        expect(any_status, f"{url}: {error}: {text}")
        return text
    except OSError as error:
        raise Failure(f"{url}: {error}") from error


# --- metrics ----------------------------------------------------------------------------------------------------------


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        found = _SAMPLE.findall(text)
        self.samples = [(name, dict(_LABEL.findall(labels)), float(value)) for name, labels, value in found]

    def total(self, family: str, **labels: object) -> float:
        """The sum of the samples of a family that have all these labels."""
        wanted = {name: str(value) for name, value in labels.items()}.items()
        return sum(value for name, found, value in self.samples if name == family and wanted <= found.items())

    def counts(self, family: str, *labels: str) -> Counter:
        """The samples of a family that are not 0, by the values of these labels."""
        counts = Counter()
        for name, found, value in self.samples:
            if name == family and value:
                counts[tuple(found[label] for label in labels)] += value
        return counts

    def sums(self) -> list[tuple[str, float, float]]:
        """The sums that hold at rest: name, value, expected value."""
        opened = self.total("websocket_handshakes_total", status=101)
        closes = self.total("websocket_closes_total")
        unclean = self.total("websocket_closes_total", clean="false")
        return [
            ("closes", closes, opened - self.total("websocket_sessions_active")),
            ("close events", self.total("websocket_close_events_total"), 2 * closes),
            ("close views", self.total("websocket_close_views_total"), closes),
            ("abnormal closes", self.total("websocket_abnormal_closes_total"), unclean),
        ]


if __name__ == "__main__":
    print(fetch(sys.argv[1]))
