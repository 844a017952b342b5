"""Processes pinned to cores: their CPU clocks, their memory, their system calls."""

import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path


class Process:
    """A child process and its descendants on given cores. It ends with the `with` block."""

    def __init__(self, command, cores, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.DEVNULL)
        options.setdefault("stderr", subprocess.DEVNULL)
        self.popen = subprocess.Popen(["taskset", "-c", cores, *map(str, command)], text=True, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        tree = self.tree()
        self.popen.terminate()
        try:
            self.popen.wait(3)
        except subprocess.TimeoutExpired:
            for pid in tree:
                os.kill(pid, signal.SIGKILL)
            self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if pipe:
                pipe.close()

    def tree(self):
        """The process and its descendants (nginx: the master and its workers)."""
        pids = [self.popen.pid]
        for pid in pids:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                pids += map(int, children.read_text().split())
        return pids

    def cpu_seconds(self):
        """CPU time used so far by all threads, to the nanosecond (CPUCLOCK_SCHED of each process)."""
        return sum(time.clock_gettime(~pid << 3 | 2) for pid in self.tree())

    def memory(self):
        """Resident bytes. Pages that several processes of the tree share count once (by their Pss)."""
        pids = self.tree()
        field = "Rss" if len(pids) == 1 else "Pss"
        return sum(_rollup(pid, field) for pid in pids)


def _rollup(pid, field):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024


class SystemCalls:
    """Counts the system calls of a process during the `with` block, by strace, which slows the process down."""

    def __init__(self, process):
        self.calls, self.failed_receives = 0, 0
        self._summary = tempfile.NamedTemporaryFile("r", suffix=".strace")
        pids = process.tree()
        attach = [argument for pid in pids for argument in ("-p", str(pid))]
        command = ["strace", "-c", "-f", "-o", self._summary.name, *attach]
        self._strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self._strace.stderr:
            pids = [pid for pid in pids if f"Process {pid} attached" not in line]
            if not pids:
                break

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._strace.send_signal(signal.SIGINT)
        self._strace.stderr.close()
        self._strace.wait()
        for line in self._summary.read().splitlines():
            fields = line.split()
            if len(fields) < 5 or not fields[3].isdigit() or fields[-1] == "total":
                continue
            self.calls += int(fields[3])
            if fields[-1] in ("read", "readv", "recvfrom", "recvmsg", "splice") and len(fields) == 6:
                self.failed_receives += int(fields[4])
        self._summary.close()
