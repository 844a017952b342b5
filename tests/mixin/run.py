"""Dashboards, rules, alerts, runbooks and other documents, first on paper, then against the real programs.

A demo, a sidecar before the demo's server, and a third that is drained are scraped by a real Prometheus. Every query of
every panel and of every document must then return data; and when the demo is killed, the alert must arrive at a
webhook. The last line counts.
"""

import filecmp
import re
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import dashboards
import documents
from dashboards import Query
from monitoring import Alertmanager, Prometheus, Webhook
from processes import Closewatch, Failure, eventually, fetch, temporary_directory
from websocket import Client

ROOT = Path(__file__).resolve().parents[2]
RULE_FILES = [ROOT / "deploy/prometheus/recording.yaml", ROOT / "deploy/prometheus/alerts.yaml"]
EXAMPLES = [ROOT / "deploy/prometheus/prometheus.yaml", ROOT / "deploy/prometheus/federation.yaml"]
# How many sessions lose their server: so many that what the demo loses by itself is no tenth of all.
LOST_SESSIONS = 300

results: list[bool] = []


def main() -> int:
    # So that SIGTERM too ends every process on its way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    on_paper()
    with ExitStack() as stack:
        check("everything starts", against_the_real_programs, stack)
    failed = results.count(False)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


def check(name: str, probe: Callable[..., None], *arguments: object) -> None:
    """One case: passes where the probe raises nothing."""
    try:
        probe(*arguments)
    except Exception as error:
        results.append(False)
        told = isinstance(error, Failure | AssertionError) and str(error)
        print(f"FAIL  {name}: {told or traceback.format_exc()}", flush=True)
    else:
        results.append(True)
        print(f"ok    {name}", flush=True)


# --- on paper ---------------------------------------------------------------------------------------------------------


def on_paper() -> None:
    check("the dashboards' sources are sound, and their JSON is what they write", dashboards_are_generated)
    check("promtool finds the examples sound", promtool, "check", "config", *EXAMPLES)
    check("promtool finds the rules sound", promtool, "check", "rules", *RULE_FILES)
    for file in sorted((ROOT / "deploy/prometheus/tests").glob("*.yaml")):
        check(f"promtool test rules {file.name}", promtool, "test", "rules", file)
    check("every alert has unit tests that see it fire and not fire", alerts_are_tested)
    check("every alert has its runbook, and every runbook its alert", runbooks_fit)
    check("every link in the documents leads somewhere", links_lead_somewhere)
    for dashboard in dashboards.everyone():
        check(f"{dashboard.title}: every panel has a description and a unit", panels_are_described, dashboard)


def dashboards_are_generated() -> None:
    sources = ROOT / "deploy/grafana"
    run("npx", "--no-install", "tsc", cwd=sources)
    with tempfile.TemporaryDirectory(prefix="closewatch-dashboards-") as directory:
        run("node", ".build/main.js", directory, cwd=sources)
        written = {file.name for file in Path(directory).iterdir()}
        committed = {file.name for file in dashboards.DIRECTORY.iterdir()}
        assert written == committed, f"{written} is written, {committed} is there"
        _, *differing = filecmp.cmpfiles(directory, dashboards.DIRECTORY, written, shallow=False)
        assert not any(differing), f"run `npm run build` in deploy/grafana: {differing}"


def alerts_are_tested() -> None:
    tests = "\n".join(file.read_text() for file in (ROOT / "deploy/prometheus/tests").glob("*.yaml"))
    for name in alert_names():
        cases = re.findall(rf"alertname: {name}\n\s+exp_alerts: *(\[\])?", tests)
        assert "[]" in cases and "" in cases, f"{name} is expected {len(cases)} times: {cases}"


def runbooks_fit() -> None:
    pages = {file.stem for file in (ROOT / "docs/runbooks").glob("*.md")}
    linked = set(re.findall(r"runbook_url: docs/runbooks/(\w+)\.md", RULE_FILES[1].read_text()))
    assert pages == linked == set(alert_names()), f"pages {pages}, linked {linked}, alerts {set(alert_names())}"


def alert_names() -> list[str]:
    return re.findall(r"- alert: (\w+)", RULE_FILES[1].read_text())


def links_lead_somewhere() -> None:
    dead = documents.dead_links()
    assert not dead, f"dead links: {dead}"


def panels_are_described(dashboard: dashboards.Dashboard) -> None:
    for panel in dashboard.panels:
        assert len(panel.get("description", "")) > 20, f"{panel['title']} has no description"
        assert panel["fieldConfig"]["defaults"].get("unit"), f"{panel['title']} has no unit"
        for target in panel["targets"]:
            assert "vector(" not in target["expr"], f"{panel['title']} makes its data up"


def promtool(*arguments: str | Path) -> None:
    run("promtool", *arguments)


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"


# --- against the real programs ----------------------------------------------------------------------------------------


def against_the_real_programs(stack: ExitStack) -> None:
    directory = temporary_directory(stack)
    demo = Closewatch(stack, directory, "demo", "demo")
    (directory / "closewatch.yaml").write_text(
        f"upstream: ws://{demo.public}\nadmin: {{control: true}}\ntimeouts: {{close: 500ms}}\n"
    )
    sidecar = Closewatch(stack, directory, "sidecar", "run", "--config", "closewatch.yaml")
    leaving = Closewatch(stack, directory, "leaving", "run", "--config", "closewatch.yaml")
    webhook = Webhook(stack)
    alertmanager = Alertmanager(stack, directory, webhook.url)
    prometheus = Prometheus(stack, directory, [demo, sidecar, leaving], alertmanager=alertmanager.address)
    eventually(lambda: prometheus.value("count(up == 1)") == 3, "three closewatches to be scraped")
    clients = [Client(sidecar.public) for _ in range(LOST_SESSIONS)]

    check("a sidecar has as many series as docs/scale.md says", series_fit, prometheus, sidecar)
    check("endings that the demo has not are made", make_endings, sidecar, prometheus)
    check("a drain is made", make_drain, leaving)
    check("a panel without data would be told", emptiness_is_told, prometheus)
    for dashboard in dashboards.everyone():
        variables = dashboard.variables(prometheus)
        for query in dashboard.queries():
            check(query.where, returns_data, query, variables, prometheus)
    for recipe in documents.recipes():
        query = Query(recipe.where, recipe.expr, instant=True, labels=set())
        if recipe.history:
            check(recipe.where, prometheus.query, recipe.expr)
        else:
            check(recipe.where, returns_data, query, {}, prometheus)
    check("every family of closewatch's is on a dashboard", families_are_shown, demo)
    check("every rule can be evaluated", rules_are_healthy, prometheus)
    arrival = "the killed server's alert arrives at the webhook"
    check(arrival, server_loss_is_told, demo, clients, prometheus, webhook)


def series_fit(prometheus: Prometheus, sidecar: Closewatch) -> None:
    stated = re.search(r"A sidecar at rest has (\d+) series", (ROOT / "docs/scale.md").read_text())
    assert stated, "docs/scale.md does not say how many series a sidecar at rest has"
    measured = prometheus.value(f'min_over_time(scrape_samples_scraped{{instance="{sidecar.admin}"}}[1m])')
    assert abs(measured - int(stated[1])) <= 0.05 * measured, f"{stated[1]} are stated, {measured:.0f} measured"


def make_endings(sidecar: Closewatch, prometheus: Prometheus) -> None:
    # The client's Close frame is not answered: it sees 1006, the server 1000.
    unanswered = Client(sidecar.public)
    unanswered.say("silent")
    unanswered.close(1000)
    unanswered.read_to_end()
    # An unmasked frame is a breach.
    rude = Client(sidecar.public)
    rude.say("hello", masked=False)
    rude.read_to_end()
    assert Client(sidecar.public, "/status/503").status == 503
    fetch(f"http://{sidecar.public}/")
    # A client that does not read.
    slow = Client(sidecar.public)
    slow.say("flood 300 65536")
    held = f'websocket_buffered_bytes{{instance="{sidecar.admin}", from="server", route="default"}}'
    eventually(lambda: prometheus.value(held), "bytes held for a slow reader")
    slow.reset()
    sidecar.control("/-/reload")


def make_drain(leaving: Closewatch) -> None:
    clients = [Client(leaving.public) for _ in range(3)]
    leaving.control("/-/drain")
    for client in clients:
        client.await_close()
        client.close(1001)
        client.read_to_end()
    drained = r'^websocket_proxy_actions_total{action="drain",route="default"} 3$'
    eventually(lambda: re.search(drained, leaving.metrics(), re.M), "three drained sessions")


def emptiness_is_told(prometheus: Prometheus) -> None:
    for expr in (
        "websocket_sessions_lost_total",
        'websocket_sessions_active{route="nowhere"}',
        "vector(0) / vector(0)",
    ):
        told = dashboards.fault(Query("", expr, instant=True, labels=set()), {}, prometheus)
        assert told and told.startswith("no data"), f"{expr}: {told}"
    told = dashboards.fault(Query("", "websocket_sessions_active", instant=True, labels={"rout"}), {}, prometheus)
    assert told and told.startswith("no label rout"), told


def returns_data(query: Query, variables: dict[str, str], prometheus: Prometheus) -> None:
    try:
        eventually(lambda: dashboards.fault(query, variables, prometheus) is None, "data")
    except Failure:
        raise Failure(dashboards.fault(query, variables, prometheus) or "data came too late") from None


def families_are_shown(demo: Closewatch) -> None:
    shown = " ".join(query.expr for dashboard in dashboards.everyone() for query in dashboard.queries())
    families = re.findall(r"^# TYPE ((?:websocket|closewatch)_\w+)", demo.metrics(), re.M)
    missing = [family for family in families if family not in shown]
    assert families and not missing, f"not shown: {missing}"


def rules_are_healthy(prometheus: Prometheus) -> None:
    def evaluated() -> list[dict]:
        rules = prometheus.rules()
        return [] if any(rule["health"] == "unknown" for rule in rules) else rules

    rules = eventually(evaluated, "every rule to be evaluated")
    unhealthy = [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] != "ok"]
    assert not unhealthy, unhealthy


def server_loss_is_told(demo: Closewatch, clients: list[Client], prometheus: Prometheus, webhook: Webhook) -> None:
    name = "WebSocketServerLossBurst"
    # The recorded series, which the alert reads.
    sessions = 'job_route:websocket_sessions_active:sum{route="default"}'
    eventually(lambda: prometheus.value(sessions) >= LOST_SESSIONS, f"{LOST_SESSIONS} sessions in Prometheus")
    assert not webhook.firing(name), "the alert fires before anything was killed"
    demo.kill()
    alert = eventually(lambda: webhook.firing(name), "the alert")[0]
    assert alert["labels"]["route"] == "default" and alert["labels"]["job"] == "closewatch", alert
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md", alert
    for client in clients:
        client.hang_up()


if __name__ == "__main__":
    sys.exit(main())
