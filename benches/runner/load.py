"""The echo server and the load generator of `benches/load`."""

import json
import subprocess

from .processes import Process


class Failed(Exception):
    """A run that cannot be measured, because a session broke or an answer was wrong."""


class Echo(Process):
    """The server behind every proxy."""

    def __init__(self, binary, cores):
        super().__init__([binary, "echo", "127.0.0.1:0"], cores, stdout=subprocess.PIPE)
        self.address = self.popen.stdout.readline().split()[-1]


class Load(Process):
    """The clients. Each command returns when no message is in flight, so that clocks can be read in between."""

    def __init__(self, binary, cores, address, routes=1, codes=(1000,)):
        command = [binary, "load", address, "--routes", routes, "--codes", ",".join(map(str, codes))]
        super().__init__(command, cores, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.totals = None

    def open(self, count, size=64, in_flight=1):
        return self._ask(f"open {count} {size} {in_flight}")

    def run(self, seconds):
        return self._ask(f"run {round(seconds * 1000)}")

    def churn(self, width, seconds):
        return self._ask(f"churn {width} {round(seconds * 1000)}")

    def close(self):
        return self._ask("close")

    def _ask(self, command):
        try:
            self.popen.stdin.write(command + "\n")
            self.popen.stdin.flush()
        except BrokenPipeError:
            pass  # It said why on its way out.
        line = self.popen.stdout.readline()
        if not line:
            raise Failed(f"`{command}`: {self.popen.stderr.read().strip()}")
        answer = json.loads(line)
        self.totals = answer["totals"]
        return answer
