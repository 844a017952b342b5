"""The Debian package: built, installed into a temporary copy of this host, and run there by a real systemd."""

from closewatch import Failure, expect, expect_equal, run
from tools import HERE, cargo_deb, fresh_directory, release_build

NEEDS_ROOT = True

# Runs booted.sh and ends the host. As the target of the boot it starts only the units that systemd itself needs.
BOOTED_UNIT = """
[Unit]
DefaultDependencies=no
Requires=sysinit.target dbus.socket
After=sysinit.target dbus.socket
SuccessAction=exit-force
FailureAction=exit-force

[Service]
Type=oneshot
Environment=HOME=/root
ExecStart=/booted.sh
StandardOutput=file:/booted.log
TimeoutStartSec=150s
"""


def check(report):
    package = None
    with report.check("package: builds"):
        package = build()
    if package is None:
        return
    with report.check("package: has its files"):
        check_contents(package)
    for title, failure in boot(package):
        with report.check(f"package: {title}"):
            if failure is not None:
                raise Failure(failure)


def build():
    release_build()
    folder = fresh_directory("package")
    run(cargo_deb(), "deb", "--no-build", "--locked", "--output", folder, timeout=300)
    (package,) = folder.glob("*.deb")
    return package


def check_contents(package):
    listing = run("dpkg-deb", "--contents", package)
    modes = {line.split()[5].removeprefix("."): line.split()[0] for line in listing.splitlines()}
    for path, mode in {
        "/usr/bin/closewatch": "-rwxr-xr-x",
        "/etc/closewatch/config.yaml": "-rw-r--r--",
        "/usr/lib/systemd/system/closewatch.service": "-rw-r--r--",
        "/usr/lib/systemd/system/closewatch.socket": "-rw-r--r--",
        "/usr/share/doc/closewatch/README.md": "-rw-r--r--",
        "/usr/share/doc/closewatch/copyright": "-rw-r--r--",
    }.items():
        expect_equal(modes.get(path), mode, path)
    conffiles = run("dpkg-deb", "--info", package, "conffiles").split()
    expect_equal(conffiles, ["/etc/closewatch/config.yaml"], "the conffiles")
    expect("libc6" in run("dpkg-deb", "--field", package, "Depends"), "it does not depend on libc6")


def boot(package) -> list[tuple[str, str | None]]:
    """The checks in the booted host, each with its output if it failed."""
    log = fresh_directory("boot") / "log"
    command = ["unshare", "--mount", "--propagation", "private", HERE / "boot.sh", package, log]
    try:
        run(*command, input=BOOTED_UNIT, timeout=240)
    except Failure as failure:
        output = log.read_text() if log.exists() else ""
        return [("a host boots with it", f"{output}\n{failure}")]
    return parse(log.read_text())


def parse(log: str) -> list[tuple[str, str | None]]:
    results, output = [], []
    for line in log.splitlines():
        match line.split(maxsplit=1):
            case ["ok", title]:
                results.append((title, None))
                output = []
            case ["FAIL", title]:
                results.append((title, "\n".join(output)))
                output = []
            case _:
                output.append(line)
    if not results or output[-1:] != ["all checks ran"]:
        results.append(("all checks ran", "\n".join(output)))
    return results
