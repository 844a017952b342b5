"""The tables: ratios to nginx, targets, growth, fairness. They are made from the raw runs alone."""

import statistics

from . import measures, proxies

ONE, TWO = "one core", "two cores"
PEERS = [proxy.name for proxy in proxies.DEFAULTS if proxy.name not in ("closewatch", "nginx")]
ALL = [proxy.name for proxy in [*proxies.DEFAULTS, *proxies.TUNED]]
NAMES = [exchange.name for exchange in measures.EXCHANGES]

# CPU per message against nginx: measure, must, aim.
AGAINST_NGINX = [("pp1", 1.00, 0.89), ("pp64", 0.97, 0.90), ("pp512", 0.88, 0.80), ("fl64", 1.00, 0.90),
                 ("churn", 1.45, 0.95)]
# CPU per message against others: measure, other, must, aim.
AGAINST_OTHERS = [("fl16k", "nginx", 0.30, 0.24), ("fl16k", "nginx 64 KiB", 0.75, 0.65),
                  ("fl16k", "HAProxy", 0.50, 0.40), ("fl16k", "Traefik", 0.65, 0.53),
                  ("fl16k", "HAProxy splice", 1.30, 1.00), ("fl1m", "HAProxy 64 KiB", 1.1, 0.92)]


class Results:
    """All raw runs, selected by their fields."""

    def __init__(self, runs):
        self.runs = runs

    def of(self, kind, **wanted):
        """The runs of a kind that did not fail."""
        fits = ("failed" not in run and run["kind"] == kind and wanted.items() <= run.items() for run in self.runs)
        return [run for run, fit in zip(self.runs, fits) if fit]

    def median(self, kind, field, **wanted):
        """The median over the rounds; None without runs."""
        values = [run[field] for run in self.of(kind, **wanted)]
        return statistics.median(values) if values else None

    def ratio(self, measure, proxy, reference, field="proxy_us", placement=ONE):
        """The median over the rounds of a proxy's value divided by the reference's in the same round."""
        wanted = {"measure": measure, "placement": placement}
        references = {run["round"]: run[field] for run in self.of("cpu", proxy=reference, **wanted)}
        runs = self.of("cpu", proxy=proxy, **wanted)
        ratios = [run[field] / references[run["round"]] for run in runs if references.get(run["round"])]
        return statistics.median(ratios) if ratios else None

    def raised(self, proxy, disturbance):
        """The ratio of the p99 of a quiet session with a disturbance to its p99 without."""
        runs = self.of("fairness", proxy=proxy, disturbance=disturbance)
        ratios = [run["disturbed_us"] / run["quiet_us"] for run in runs]
        return statistics.median(ratios) if ratios else None


def markdown(document):
    """The whole report."""
    results = Results(document["runs"])
    sections = [
        _introduction(document), _goals(results), _cpu(results, ONE), _latency(results), _cpu(results, TWO),
        _throughput(results), _system_calls(results), _harness(results), _growth(results), _scrapes(results),
        _fairness(results), _failures(results),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _introduction(document):
    machine = "\n".join(f"- {name}: {value}" for name, value in document["machine"].items())
    versions = "\n".join(f"- {name}: {version}" for name, version in document["versions"].items())
    settings = document["settings"]
    return f"""# Results of {document["date"]}

Written by `benches/run` from `{document["file"]}`, which has every single run. {settings["rounds"]} rounds, interleaved
over the proxies; {settings["seconds"]} s for each run; medians of the rounds, and each ratio is computed within its round. Proxy,
echo server and load generator share one core (or two), a proxy has a worker for each core, access logs are off. CPU is the
proxy's process CPU clock over exactly the counted messages. A message is a round trip: two frames through the proxy.
After every run of closewatch, each series of `/metrics` must equal the counts of the load generator.

pp1, pp64, pp512: 64-byte ping-pong at 1, 64, 512 connections. fl64, fl16k, fl1m: messages of 64 B, 16 KiB, 1 MiB, 32,
8, 2 in flight on 32, 16, 8 connections. churn: connect, upgrade, one message, closing handshake, 16 at a time. idle:
resident memory for each open connection after one message.

{machine}

{versions}"""


def _goals(results):
    rows = []

    def goal(what, value, must, aim, digits=2):
        if value is None:
            rows.append([what, "not measured", str(must), str(aim), ""])
            return
        verdict = "aim reached" if value <= aim else "must reached" if value <= must else "**missed**"
        rows.append([what, f"{value:.{digits}f}", str(must), str(aim), verdict])

    for measure, must, aim in AGAINST_NGINX:
        goal(f"{measure}: CPU / nginx", results.ratio(measure, "closewatch", "nginx"), must, aim)
    goal("pp512: p99 / nginx", results.ratio("pp512", "closewatch", "nginx", "p99_us"), 1.0, 0.75)
    for measure, other, must, aim in AGAINST_OTHERS:
        goal(f"{measure}: CPU / {other}", results.ratio(measure, "closewatch", other), must, aim)
    best = [results.ratio("fl1m", "closewatch", peer) for peer in ["nginx", *PEERS]]
    goal("fl1m: CPU / best peer with defaults", max(filter(None, best), default=None), 0.80, 0.55)
    memory = {"proxy": "closewatch"}
    goal("idle KiB per connection", results.median("memory", "kib_per_session", **memory), 1.2, 0.9)
    goal("base MiB", results.median("memory", "base_mib", **memory), 12, 6)
    for measure, must in [("pp1", 6.0), ("pp64", 4.2)]:
        calls = results.median("system calls", "calls", proxy="closewatch", measure=measure)
        goal(f"{measure}: system calls per message", calls, must, must)
        failed = results.median("system calls", "failed_receives", proxy="closewatch", measure=measure)
        goal(f"{measure}: receives without data", failed, 0, 0, 0)
    for flood in measures.FLOODS:
        name = f"flood {flood.name}"
        ours, theirs = results.raised("closewatch", name), results.raised("nginx", name)
        goal(f"{name}: rise of another session's p99 / nginx's rise", ours and theirs and ours / theirs, 2, 2)
    rises = [results.raised("nginx", f"flood {flood.name}") for flood in measures.FLOODS]
    least = min(filter(None, rises), default=None)
    for routes in (1, 100):
        ours = results.raised("closewatch", f"scrapes of {routes} routes, 0.1 s between")
        what = f"10 scrapes of {routes} routes per second: rise of a session's p99 / nginx's least rise"
        goal(what, ours and least and ours / least, 2, 2)
    return "## Targets\n\n" + _table(["measure", "closewatch", "must", "aim", ""], rows)


def _cpu(results, placement):
    rows = []
    for proxy in ALL:
        cells = [_ratio_or_microseconds(results, measure, proxy, placement) for measure in NAMES]
        if placement == ONE:
            memory = [results.median("memory", field, proxy=proxy) for field in ("kib_per_session", "base_mib")]
            cells += [_number(value, 1) for value in memory]
        if any(cells):
            rows.append([f"{proxy} (µs)" if proxy == "nginx" else proxy, *cells])
    header = ["", *NAMES, *(["idle KiB/conn", "base MiB"] if placement == ONE else [])]
    return rows and f"## Proxy CPU per message, {placement}, as a ratio to nginx\n\n" + _table(header, rows)


def _ratio_or_microseconds(results, measure, proxy, placement):
    if proxy == "nginx":
        value = results.median("cpu", "proxy_us", proxy=proxy, measure=measure, placement=placement)
        return value and f"{value:.3g}"
    return _number(results.ratio(measure, proxy, "nginx", placement=placement), 2)


def _latency(results):
    rows = []
    for proxy in ["direct", *ALL]:
        runs = [{"proxy": proxy, "measure": name, "placement": ONE} for name in NAMES]
        values = [[results.median("cpu", field, **run) for field in ("p50_us", "p99_us")] for run in runs]
        if any(p50 for p50, _ in values):
            rows.append([proxy, *(f"{p50:.0f} / {p99:.0f}" if p50 else "" for p50, p99 in values)])
    return rows and f"## Round trip p50 / p99 in µs, {ONE}\n\n" + _table(["", *NAMES], rows)


def _throughput(results):
    rows = []
    for proxy in ALL:
        rates = [
            [run["messages"] / run["seconds"] for run in results.of("cpu", proxy=proxy, measure=name, placement=TWO)]
            for name in NAMES
        ]
        if any(rates):
            rows.append([proxy, *(f"{statistics.median(rate):,.0f}" if rate else "" for rate in rates)])
    return rows and f"## Messages per second, {TWO}\n\n" + _table(["", *NAMES], rows)


def _system_calls(results):
    rows = [
        [run["proxy"], run["measure"], f'{run["calls"]:.2f}', run["failed_receives"], f'{run["messages"]:,}']
        for run in results.of("system calls")
    ]
    header = ["", "measure", "calls per message", "receives without data", "messages"]
    return rows and "## System calls\n\nCounted by strace, which slows all proxies down.\n\n" + _table(header, rows)


def _harness(results):
    rows = []
    for process in ("load", "echo"):
        cells = []
        for name in NAMES:
            wanted = {"proxy": "nginx", "measure": name, "placement": ONE}
            own, proxy = (results.median("cpu", f"{which}_us", **wanted) for which in (process, "proxy"))
            cells.append(f"{own:.3g} ({own / proxy:.2f})" if own and proxy else "")
        if any(cells):
            rows.append([process, *cells])
    note = "CPU per message in µs of the load generator and the echo server with nginx between, and as a share of nginx's."
    return rows and f"## Cost of the measurement\n\n{note}\n\n" + _table(["", *NAMES], rows)


def _growth(results):
    rows = [
        [run["proxy"], f'{run["connections"]:,}', f'{run["cpu_us"]:.2f}', f'{run["p99_us"]:,.0f}',
         f'{run["rss_mib"]:.1f}', f'{run["kib_per_session"]:.2f}']
        for run in results.of("growth")
    ]
    header = ["", "connections", "CPU µs/message", "p99 µs", "resident MiB", "KiB per connection over the base"]
    return rows and "## Growth with connections\n\n64-byte ping-pong on all of them.\n\n" + _table(header, rows)


def _scrapes(results):
    rows = [
        [run["routes"], run["codes"], f'{run["series"]:,}', f'{run["kib"]:.0f}', f'{run["milliseconds"]:.2f}',
         f'{run["cpu_milliseconds"]:.2f}', f'{run["cpu_milliseconds"] / run["series"] * 1e6:.0f}']
        for run in results.of("scrape")
    ]
    header = ["routes", "codes", "series", "KiB", "time ms", "CPU ms", "CPU ns per series"]
    return rows and "## Growth of a scrape with routes and codes\n\n" + _table(header, rows)


def _fairness(results):
    rows = [
        [run["proxy"], run["disturbance"], f'{run["quiet_us"]:.0f}', f'{run["disturbed_us"]:.0f}',
         f'{run["disturbed_us"] / run["quiet_us"]:.1f}']
        for run in results.of("fairness")
    ]
    header = ["", "disturbance", "alone", "disturbed", "rise"]
    note = ("p99 in µs of one 64-byte ping-pong session, alone and beside a disturbance on its worker. `direct` is "
            "the queue that the flood makes in the load generator and the echo server alone.")
    return rows and f"## Fairness\n\n{note}\n\n" + _table(header, rows)


def _failures(results):
    failed = [run for run in results.runs if "failed" in run]
    lines = [
        "- " + ", ".join(str(run[key]) for key in ("kind", "placement", "measure", "proxy", "round") if key in run)
        + ": " + run["failed"].replace("\n", " ")[:200]
        for run in failed
    ]
    return lines and "## Failures\n\n" + "\n".join(lines)


def _number(value, digits):
    return None if value is None else f"{value:.{digits}f}"


def _table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str("" if cell is None else cell) for cell in line) + " |" for line in lines)
