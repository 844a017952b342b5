"""The image: the linter, the build, and the running container. Base images are not available everywhere, so the first
stage of the Dockerfile runs on this host, with the same files and the same command. The Dockerfile builds the last one.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from areas import compose
from closewatch import ROOT, build, eventually, expect, expect_equal, run, status_of, target_directory
from tools import CACHE, HERE, fresh_directory, open_sessions, python_tool, release_build

NEEDS_ROOT = True

DOCKERFILE = ROOT / "deploy/Dockerfile"
IMAGE = "localhost/closewatch-deployment-test"
NETWORK = f"closewatch-test-{os.getpid()}"

# Far above its size. A base image is larger.
MOST_BYTES = 10 << 20

# The options of a careful operator. Limits above those of this process are not possible.
CONFINED = [
    "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", f"--network=ns:/run/netns/{NETWORK}",
    "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--runtime=runc",
]  # fmt: skip


def check(report):
    with report.check("image: hadolint"):
        run(python_tool("hadolint"), DOCKERFILE)
    with report.check("image: builds"):
        build_image()
    with contextlib.ExitStack() as stack:
        stack.callback(run, "podman", "rmi", "--force", IMAGE)
        with report.check("image: has one static program and the options to run it"):
            check_contents()
        stack.enter_context(network())
        with report.check("image: the demo of compose runs confined, is healthy, and drains after SIGTERM"):
            check_demo()
        with report.check("image: finds its server by /etc/hosts and by DNS"):
            check_names()
        with report.check("image: drains before its server ends, as a preStop hook"):
            check_pre_stop()


# --- building --------------------------------------------------------------------------------------------------------


def build_image():
    """Builds the image. The build stage runs on this host."""
    stage = CACHE / "image"
    program = stage / "src/target/release/closewatch"
    program.parent.mkdir(parents=True, exist_ok=True)
    run_build_stage(CACHE / "image-src", program)
    run("buildah", "bud", "--isolation", "chroot", "--format", "docker", "--pull=false",
        "--build-context", f"build={stage}", "--file", DOCKERFILE, "--tag", IMAGE, stage, timeout=120)  # fmt: skip


def run_build_stage(source: Path, program: Path):
    """Copies the files of the Dockerfile, runs its command, and takes the program."""
    stage = DOCKERFILE.read_text().split("\nFROM ")[1].replace("\\\n", "")
    copy_sources(stage, source)
    commands = re.findall(r"^RUN (.*)$", stage, re.MULTILINE)
    expect(len(commands) == 1, f"the build stage has {len(commands)} RUN instructions instead of one")
    environment = os.environ | {"CARGO_TARGET_DIR": str(target_directory())}
    try:
        done = subprocess.run(commands[0], shell=True, cwd=source, env=environment, capture_output=True, text=True)
        expect(done.returncode == 0, f"{commands[0]}\n{done.stderr}")
        shutil.copy(target_directory() / "release/closewatch", program)
    finally:
        # Both builds have the same target directory. The other tests need the other build.
        build("release")


def copy_sources(stage: str, source: Path):
    """Keeps the times of unchanged files, so that cargo builds nothing twice."""
    source.mkdir(parents=True, exist_ok=True)
    for line in re.findall(r"^COPY (.*)$", stage, re.MULTILINE):
        *paths, target = line.split()
        for path in paths:
            destination = source / target / (Path(path).name if target.endswith("/") else "")
            if (ROOT / path).is_dir():
                shutil.copytree(ROOT / path, destination, dirs_exist_ok=True)
            else:
                shutil.copy2(ROOT / path, destination)


# --- contents --------------------------------------------------------------------------------------------------------


def check_contents():
    inspected = json.loads(run("podman", "image", "inspect", IMAGE))[0]
    configuration = inspected["Config"]
    expect_equal(configuration["User"], "65532:65532", "the user")
    expect_equal(configuration["Entrypoint"], ["/closewatch"], "the entry point")
    expect_equal(configuration["Cmd"], ["run"], "the command")
    expect_equal(inspected["Healthcheck"]["Test"], ["CMD", "/closewatch", "health"], "the health check")
    expect(inspected["Size"] < MOST_BYTES, f"the image has {inspected['Size']} bytes")
    print(f"      the image has {inspected['Size'] / 1e6:.1f} MB")
    container = run("buildah", "from", "--pull-never", IMAGE).strip()
    try:
        root = Path(run("buildah", "mount", container).strip())
        files = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
        expect_equal(files, ["closewatch"], "the files")
        expect("interpreter" not in run("readelf", "--program-headers", root / "closewatch"), "the program is dynamic")
    finally:
        run("buildah", "rm", container)


# --- running ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def network():
    """A network namespace with a name server that resolves *.example to 127.0.0.1."""
    run("ip", "netns", "add", NETWORK)
    name_server = None
    try:
        run("ip", "-n", NETWORK, "link", "set", "lo", "up")
        name_server = subprocess.Popen(inside(sys.executable, HERE / "name_server.py"), stdout=subprocess.PIPE)
        name_server.stdout.readline()
        yield
    finally:
        if name_server:
            name_server.kill()
            name_server.wait()
        run("ip", "netns", "del", NETWORK)


def inside(*command) -> list[str]:
    return [str(word) for word in ("ip", "netns", "exec", NETWORK, *command)]


@contextlib.contextmanager
def container(*arguments: str, options: list[str] = []):
    """A confined container. Yields its name."""
    name = f"{NETWORK}-{time.monotonic_ns()}"
    run("podman", "run", "--pull=never", "--detach", "--name", name, *CONFINED, *options, IMAGE, *arguments)
    try:
        yield name
    finally:
        run("podman", "rm", "--force", "--time", "0", name)


def await_health(name: str, *command: str):
    def healthy():
        status, output, errors = status_of("podman", "exec", name, "/closewatch", "health", *command)
        running = run("podman", "inspect", "--format", "{{.State.Running}}", name).strip()
        expect(running == "true", f"the container has ended: {logs(name)}")
        return status == 0

    eventually("the container is healthy", healthy)


def logs(name: str) -> str:
    _, output, errors = status_of("podman", "logs", name)
    return output + errors


@contextlib.contextmanager
def session(url: str):
    """An open session of a client outside the container. The yielded function returns the report of the client."""
    command = inside(release_build(), "probe", url, "--send", "hello", "--wait", "60s", "--json")
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def ended() -> dict:
        output, _ = client.communicate(timeout=60)
        return json.loads(output)

    try:
        yield ended
    finally:
        client.kill()
        client.wait()


def sessions(admin: str) -> int:
    """The open sessions of the closewatch with this admin."""
    return open_sessions(f"http://{admin}", inside)


def check_demo():
    with container(*compose.command(), "--no-traffic") as demo:
        await_health(demo)
        run("podman", "healthcheck", "run", demo)
        with session("ws://127.0.0.1:8080/") as ended:
            eventually("a session is open", lambda: sessions("127.0.0.1:9917") == 1)
            run("podman", "kill", "--signal", "TERM", demo)
            closed = ended()
            expect_equal((closed["close"]["code"], closed["close"]["clean"]), (1001, True), "the client's close event")
            expect_equal(closed["messages"], ["hello"], "the messages")
        expect_equal(run("podman", "wait", demo, timeout=60).strip(), "0", "the exit code")


@contextlib.contextmanager
def server():
    """A server on port 9000: the demo."""
    with container("demo", "--no-traffic", "--listen", "127.0.0.1:9000", "--admin", "127.0.0.1:9916") as name:
        await_health(name, "--admin", "http://127.0.0.1:9916")
        yield


def check_names():
    with server():
        for host, options in {
            "chat.hosts": ["--add-host=chat.hosts:127.0.0.1"],
            "chat.example": ["--dns=127.0.0.1"],
            "chat": ["--dns=127.0.0.1", "--dns-search=example"],
        }.items():
            with container("run", "--upstream", f"ws://{host}:9000", options=options) as proxy:
                await_health(proxy)
                run(*inside(release_build(), "probe", "ws://127.0.0.1:8080/", "--close", "1000"))


def check_pre_stop():
    folder = fresh_directory("pre-stop")
    (folder / "config.yaml").write_text("upstream: ws://127.0.0.1:9000\nadmin: {control: true}\n")
    mounted = [f"--volume={folder}:/etc/closewatch:ro"]
    with (
        server(),
        container("run", "--config", "/etc/closewatch/config.yaml", options=mounted) as proxy,
    ):
        await_health(proxy)
        with session("ws://127.0.0.1:8080/") as ended:
            eventually("a session is open", lambda: sessions("127.0.0.1:9917") == 1)
            run("podman", "exec", proxy, "/closewatch", "drain", "--wait", "--timeout", "27s")
            closed = ended()["close"]
            expect_equal((closed["code"], closed["clean"]), (1001, True), "the client's close event")
        expect_equal(run("podman", "inspect", "--format", "{{.State.Running}}", proxy).strip(), "true", "still running")
        run("podman", "kill", "--signal", "TERM", proxy)
        expect_equal(run("podman", "wait", proxy, timeout=60).strip(), "0", "the exit code")
