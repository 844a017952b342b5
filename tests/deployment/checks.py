"""What the areas of tests/deployment are made of: checks that are told and counted, and commands that are run."""

import contextlib
import shutil
import subprocess
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "tests/.cache/deployment"


class Failure(Exception):
    """What does not hold, for people."""


@dataclass
class Report:
    """The checks' results, told as they come."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def check(self, title: str):
        """One check: whatever its body raises is its failure."""
        began = time.monotonic()
        try:
            yield
        except Failure as failure:
            self._fail(title, str(failure))
        except Exception:
            self._fail(title, traceback.format_exc())
        else:
            self.passed += 1
            print(f"ok    {title} ({time.monotonic() - began:.1f} s)", flush=True)

    def _fail(self, title: str, why: str):
        self.failures.append(title)
        print(f"FAIL  {title}\n      " + why.strip().replace("\n", "\n      "), flush=True)


def run(*command, input: str | None = None, timeout: float = 60, **options) -> str:
    """A command's standard output; a Failure with all it said where it does not end with 0."""
    status, output, errors = status_of(*command, input=input, timeout=timeout, **options)
    if status != 0:
        raise Failure(f"{' '.join(map(str, command))}\nended with {status}:\n{output}{errors}")
    return output


def status_of(*command, timeout: float = 60, **options) -> tuple[int, str, str]:
    """How a command ended, and what it said on standard output and standard error."""
    try:
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, timeout=timeout, cwd=ROOT, **options
        )
    except subprocess.TimeoutExpired as expired:
        raise Failure(f"{' '.join(map(str, command))}\ntook longer than {timeout} s:\n{expired.stdout}") from None
    return done.returncode, done.stdout, done.stderr


def expect(condition, what_is_wrong: str):
    """Fails unless the condition holds."""
    if not condition:
        raise Failure(what_is_wrong)


def expect_equal(found, wanted, of_what: str):
    """Fails unless both are equal."""
    expect(found == wanted, f"{of_what}\n  is        {found!r}\n  should be {wanted!r}")


def eventually(what: str, probe, seconds: float = 20):
    """What `probe` gives as soon as it is true. Waits for what other processes do, and for nothing else."""
    deadline = time.monotonic() + seconds
    while not (result := probe()):
        expect(time.monotonic() < deadline, f"not within {seconds} s: {what}")
        time.sleep(0.05)
    return result


def fresh_directory(name: str) -> Path:
    """An empty directory in the cache."""
    path = CACHE / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
