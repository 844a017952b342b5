"""The Debian package: built, installed into a throw-away copy of this machine, and run there by a real systemd."""

from closewatch import Failure, expect, expect_equal, run
from tools import HERE, cargo_deb, fresh_directory, release_build

NEEDS_ROOT = True

# Runs booted.sh and ends the machine. As the target of the boot it pulls in what systemd itself needs, nothing else of
# what is installed here.
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
    with report.check("package: is built"):
        package = build()
    if package is None:
        return
    with report.check("package: has what belongs in it"):
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
    """What was checked in the machine, each with what was said where it failed."""
    log = fresh_directory("boot") / "log"
    command = ["unshare", "--mount", "--propagation", "private", HERE / "boot.sh", package, log]
    try:
        run(*command, input=BOOTED_UNIT, timeout=240)
    except Failure as failure:
        said = log.read_text() if log.exists() else ""
        return [("a machine boots with it", f"{said}\n{failure}")]
    return parse(log.read_text())


def parse(log: str) -> list[tuple[str, str | None]]:
    results, said = [], []
    for line in log.splitlines():
        match line.split(maxsplit=1):
            case ["ok", title]:
                results.append((title, None))
                said = []
            case ["FAIL", title]:
                results.append((title, "\n".join(said)))
                said = []
            case _:
                said.append(line)
    if not results or said[-1:] != ["that was all"]:
        results.append(("all checks ran", "\n".join(said)))
    return results
