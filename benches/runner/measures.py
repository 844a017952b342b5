"""The measures, and how one proxy runs through them."""

import statistics
import threading
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from . import counters
from .load import Echo, Failed, Load
from .processes import SystemCalls

# Codes for the growth table: the registered ones that are allowed on the wire, and as many private ones.
CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, *range(4000, 4012)]


@dataclass
class Placement:
    """The cores that proxy, echo server and load generator share, and the number of workers of the proxy."""

    name: str
    cores: str
    workers: int


@dataclass
class Exchange:
    """Messages of `size` bytes, `in_flight` at once in each of `connections`."""

    name: str
    connections: int
    size: int
    in_flight: int

    def prepare(self, load):
        load.open(self.connections, self.size, self.in_flight)

    def use(self, load, seconds):
        answer = load.run(seconds)
        return {**answer["results"][0], "seconds": answer["seconds"]}


@dataclass
class Churn:
    """Whole sessions: connect, upgrade, one message, closing handshake, `width` at a time."""

    name: str
    width: int

    def prepare(self, load):
        load.open(1)

    def use(self, load, seconds):
        answer = load.churn(self.width, seconds)
        return {"messages": answer["churned"], **{key: answer[key] for key in ("seconds", "p50_us", "p99_us")}}


SMALL = [Exchange("pp1", 1, 64, 1), Exchange("pp64", 64, 64, 1), Exchange("pp512", 512, 64, 1),
         Exchange("fl64", 32, 64, 32)]
LARGE = [Exchange("fl16k", 16, 16 * 1024, 8), Exchange("fl1m", 8, 1024 * 1024, 2)]
CHURN = Churn("churn", 16)
EXCHANGES = [*SMALL, *LARGE, CHURN]
# The floods beside a ping-pong session.
FLOODS = [Exchange("64 B x 256", 1, 64, 256), Exchange("64 KiB x 16", 1, 64 * 1024, 16),
          Exchange("1 MiB x 4", 1, 1024 * 1024, 4)]


class Bench:
    """The programs, and the limits of this run."""

    def __init__(self, programs, load, seconds, open_files):
        self.programs, self._load, self.seconds, self._open_files = programs, load, seconds, open_files

    @property
    def idle_sessions(self):
        """The largest number of sessions: two file descriptors each in the proxy, and some for its other files."""
        return min(9500, (self._open_files - 900) // 2)

    def cpu(self, proxy, placement, measure):
        """CPU time per message and round-trip times."""
        with self._setup(proxy, placement) as (running, echo, load):
            measure.prepare(load)
            measure.use(load, self.seconds / 6)
            processes = {"proxy": running, "echo": echo, "load": load}
            before = {name: process.cpu_seconds() for name, process in processes.items()}
            result = measure.use(load, self.seconds)
            spent = {name: process.cpu_seconds() - before[name] for name, process in processes.items()}
            _verify(running, load)
            load.close()
            _verify(running, load)
        per_message = {f"{name}_us": seconds / result["messages"] * 1e6 for name, seconds in spent.items()}
        return {**result, **per_message}

    def memory(self, proxy, placement, sessions):
        """Resident memory without connections, and for each open session after one message."""
        with self._setup(proxy, placement) as (running, _, load):
            base = running.memory()
            load.open(sessions)
            time.sleep(1)
            grown = running.memory() - base
            _verify(running, load)
            load.close()
            _verify(running, load)
        return {"sessions": sessions, "base_mib": base / 2**20, "kib_per_session": grown / sessions / 1024}

    def system_calls(self, proxy, placement, measure):
        """System calls per message, and receives that found nothing, counted by strace."""
        with self._setup(proxy, placement) as (running, _, load):
            measure.prepare(load)
            with SystemCalls(running) as counted:
                messages = measure.use(load, self.seconds / 3)["messages"]
            load.close()
            _verify(running, load)
        return {"calls": counted.calls / messages, "failed_receives": counted.failed_receives, "messages": messages}

    def growth(self, proxy, placement, connections):
        """CPU time per ping-pong message, memory and p99 for growing numbers of connections."""
        rows = []
        with self._setup(proxy, placement) as (running, _, load):
            base, opened = running.memory(), 0
            for count in (count for count in connections if count <= self.idle_sessions):
                load.open(count - opened)
                opened = count
                memory = running.memory()
                load.run(self.seconds / 6)
                before = running.cpu_seconds()
                result = load.run(self.seconds)["results"][0]
                cpu = (running.cpu_seconds() - before) / result["messages"] * 1e6
                rows.append({"connections": count, "cpu_us": cpu, "p99_us": result["p99_us"],
                             "rss_mib": memory / 2**20, "kib_per_session": (memory - base) / count / 1024})
                _verify(running, load)
            load.close()
            _verify(running, load)
        return rows

    def scrapes(self, proxy, placement, routes, codes, count=30):
        """Time, CPU and size of a scrape, after sessions of each of `routes` ended with each of `codes` codes."""
        with self._setup(proxy, placement, routes=routes, codes=CODES[:codes]) as (running, _, load):
            load.open(routes * codes)
            load.close()
            _verify(running, load)
            text, times, before = "", [], running.cpu_seconds()
            for _ in range(count):
                begun = time.monotonic()
                text = counters.scrape(running.admin)
                times.append(time.monotonic() - begun)
            cpu = (running.cpu_seconds() - before) / count
        series = sum(1 for line in text.splitlines() if line and not line.startswith("#"))
        return {"routes": routes, "codes": codes, "series": series, "kib": len(text) / 1024,
                "milliseconds": statistics.median(times) * 1e3, "cpu_milliseconds": cpu * 1e3}

    def fairness(self, proxy, placement):
        """p99 of one ping-pong session: alone, and while another session on the same worker floods."""
        rows = []
        for flood in FLOODS:
            with self._setup(proxy, placement) as (running, _, load):
                quiet = self._p99_of_one(load)
                flood.prepare(load)
                flooded = self._p99_of_one(load, keep=True)
                load.close()
                _verify(running, load)
            rows.append({"disturbance": f"flood {flood.name}", "quiet_us": quiet, "disturbed_us": flooded})
        return rows

    def fairness_to_scrapes(self, proxy, placement, routes, pause):
        """p99 of one ping-pong session: alone, and while a scraper reads /metrics, with or without a pause."""
        with self._setup(proxy, placement, routes=routes) as (running, _, load):
            quiet = self._p99_of_one(load)
            with _scraper(running.admin, pause) as scraped:
                disturbed = self._p99_of_one(load, keep=True)
            load.close()
            _verify(running, load)
        disturbance = f"scrapes of {routes} routes, {pause:g} s between"
        return {"disturbance": disturbance, "quiet_us": quiet, "disturbed_us": disturbed, "scrapes": len(scraped)}

    def _p99_of_one(self, load, keep=False):
        if not keep:
            load.open(1)
        load.run(self.seconds / 6)
        return load.run(self.seconds)["results"][0]["p99_us"]

    @contextmanager
    def _setup(self, proxy, placement, routes=1, codes=(1000,)):
        """A fresh echo server, proxy and load generator."""
        with ExitStack() as stack:
            echo = stack.enter_context(Echo(self._load, placement.cores))
            options = {"routes": routes} if routes > 1 else {}
            binary = self.programs.get(proxy.program)
            running = stack.enter_context(proxy.start(binary, echo.address, placement, self._open_files, **options))
            load = stack.enter_context(Load(self._load, placement.cores, running.address, routes, codes))
            yield running, echo, load


def _verify(running, load):
    """Fails unless closewatch's counters are exact."""
    if running.admin:
        wrong = counters.differences(running.admin, load.totals)
        if wrong:
            raise Failed("counters are wrong: " + "; ".join(wrong))


@contextmanager
def _scraper(admin, pause):
    """Scrapes with `pause` seconds in between; returns the list of sizes."""
    sizes, stop = [], threading.Event()

    def scrape():
        while not stop.wait(pause):
            with urllib.request.urlopen(f"{admin}/metrics", timeout=30) as response:
                sizes.append(len(response.read()))

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield sizes
    finally:
        stop.set()
        thread.join()
