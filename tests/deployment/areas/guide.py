"""docs/putting-it-in-front.md: its commands for one host, with sessions open before, during and after."""

import contextlib
import json
import os
import re
import subprocess

from closewatch import ROOT, eventually, expect, expect_equal, run, status_of
from tools import open_sessions, release_build

NEEDS_ROOT = True

GUIDE = ROOT / "docs/putting-it-in-front.md"
SERVER, CLIENT = f"closewatch-server-{os.getpid()}", f"closewatch-client-{os.getpid()}"
URL = "ws://10.0.0.1:9000/"


def check(report):
    with report.check("guide: closewatch goes in and out on one host, and no session is lost"), hosts():
        check_one_host()


def check_one_host():
    with contextlib.ExitStack() as stack:
        addresses = ["--listen", "0.0.0.0:9000", "--admin", "127.0.0.1:9916"]
        server = stack.enter_context(program(SERVER, "demo", "--no-traffic", *addresses))
        await_health("http://127.0.0.1:9916")
        before = stack.enter_context(session())
        eventually("the first session is open", lambda: sessions(9916) == 1)
        addresses = ["--listen", "0.0.0.0:8080", "--upstream", "ws://127.0.0.1:9000"]
        proxy = stack.enter_context(program(SERVER, "run", *addresses))
        await_health("http://127.0.0.1:9917")
        run(*inside(SERVER, "bash", "-c", commands("in")))
        during = stack.enter_context(session())
        eventually("the second session goes through closewatch", lambda: sessions(9917) == 1)
        run(*inside(SERVER, "bash", "-c", commands("out")))
        after = stack.enter_context(session())
        eventually("the third session goes to the server", lambda: sessions(9916) == 3)
        expect_equal(sessions(9917), 1, "the sessions on closewatch")
        proxy.terminate()
        expect_equal(during(), (1001, True), "how the session on closewatch ended")
        expect_equal(proxy.wait(60), 0, "closewatch's exit code")
        eventually("the others are open", lambda: sessions(9916) == 2)
        server.terminate()
        expect_equal([before(), after()], [(1001, True)] * 2, "how the others ended, with the server")


def commands(step: str) -> str:
    """The commands of the guide."""
    blocks = re.findall(r"^```sh\n# (\w+)\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    expect(step in dict(blocks), f"the guide has no commands for the step `{step}`")
    return dict(blocks)[step]


@contextlib.contextmanager
def hosts():
    """Two hosts with a cable between them: the server has 10.0.0.1, the client 10.0.0.2."""
    with contextlib.ExitStack() as stack:
        for host in (SERVER, CLIENT):
            run("ip", "netns", "add", host)
            stack.callback(run, "ip", "netns", "del", host)
        run("ip", "-n", SERVER, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", CLIENT)
        for host, address in ((SERVER, "10.0.0.1/24"), (CLIENT, "10.0.0.2/24")):
            run("ip", "-n", host, "address", "add", address, "dev", "cable")
            run("ip", "-n", host, "link", "set", "cable", "up")
            run("ip", "-n", host, "link", "set", "lo", "up")
        yield


def inside(host: str, *command) -> list[str]:
    return [str(word) for word in ("ip", "netns", "exec", host, *command)]


@contextlib.contextmanager
def program(host: str, *arguments: str, stdout=subprocess.DEVNULL):
    """A running closewatch."""
    command = inside(host, release_build(), *arguments)
    process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def session():
    """A session. The yielded function waits for its end, and returns the code and whether it was clean."""
    with program(CLIENT, "probe", URL, "--wait", "120s", "--json", stdout=subprocess.PIPE) as client:

        def ended() -> tuple[int, bool]:
            close = json.loads(client.communicate(timeout=60)[0])["close"]
            return close["code"], close["clean"]

        yield ended


def await_health(admin: str):
    command = inside(SERVER, release_build(), "health", "--admin", admin)
    eventually(f"{admin} is ready", lambda: status_of(*command)[0] == 0)


def sessions(port: int) -> int:
    """The open sessions of the closewatch whose admin has this port."""
    return open_sessions(f"http://127.0.0.1:{port}", lambda *command: inside(SERVER, *command))
