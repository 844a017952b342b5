"""Dashboards, rules, alerts, runbooks and other documents: static checks, then checks against the real programs.

A real Prometheus scrapes a demo, a sidecar in front of the demo's server, and a third closewatch that is drained. Every
query of every panel and of every document must return data. When the demo is killed, a webhook must get the alert.
The last line is `N passed, N failed`.
"""

import filecmp
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import dashboards
import documents
from closewatch import ROOT, Closewatch, Failure, Report, binary, eventually, expect, fetch, run
from dashboards import Query
from monitoring import Alertmanager, Prometheus, Webhook
from websocket import Client

RULE_FILES = [ROOT / "deploy/prometheus/recording.yaml", ROOT / "deploy/prometheus/alerts.yaml"]
EXAMPLES = [ROOT / "deploy/prometheus/prometheus.yaml", ROOT / "deploy/prometheus/federation.yaml"]
# The number of sessions that lose their server. It is ten times what the demo loses by itself.
LOST_SESSIONS = 300

report = Report()


def main() -> int:
    # SIGTERM must end every process, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    check_files()
    with ExitStack() as stack:
        check("everything starts", check_programs, stack)
    return report.finish()


def check(name: str, probe: Callable[..., None], *arguments: object) -> None:
    with report.check(name):
        probe(*arguments)


# --- static checks ----------------------------------------------------------------------------------------------------


def check_files() -> None:
    check("the JSON of the dashboards is generated from their sources", dashboards_are_generated)
    check("promtool accepts the examples", promtool, "check", "config", *EXAMPLES)
    check("promtool accepts the rules", promtool, "check", "rules", *RULE_FILES)
    for file in sorted((ROOT / "deploy/prometheus/tests").glob("*.yaml")):
        check(f"promtool test rules {file.name}", promtool, "test", "rules", file)
    check("every alert has unit tests for firing and not firing", alerts_are_tested)
    check("every alert has a runbook, and every runbook an alert", runbooks_match_alerts)
    check("every link in the documents has a target", links_have_targets)
    for dashboard in dashboards.all_dashboards():
        check(f"{dashboard.title}: every panel has a description and a unit", panels_are_described, dashboard)


def dashboards_are_generated() -> None:
    sources = ROOT / "deploy/grafana"
    run("npx", "--no-install", "tsc", cwd=sources, timeout=300)
    with tempfile.TemporaryDirectory(prefix="closewatch-dashboards-") as directory:
        run("node", ".build/main.js", directory, cwd=sources)
        written = {file.name for file in Path(directory).iterdir()}
        committed = {file.name for file in dashboards.DIRECTORY.iterdir()}
        assert written == committed, f"generated {written}, committed {committed}"
        _, *differing = filecmp.cmpfiles(directory, dashboards.DIRECTORY, written, shallow=False)
        assert not any(differing), f"run `npm run build` in deploy/grafana: {differing}"


def alerts_are_tested() -> None:
    tests = "\n".join(file.read_text() for file in (ROOT / "deploy/prometheus/tests").glob("*.yaml"))
    for name in alert_names():
        cases = re.findall(rf"alertname: {name}\n\s+exp_alerts: *(\[\])?", tests)
        assert "[]" in cases and "" in cases, f"{name} is expected {len(cases)} times: {cases}"


def runbooks_match_alerts() -> None:
    pages = {file.stem for file in (ROOT / "docs/runbooks").glob("*.md")}
    linked = set(re.findall(r"runbook_url: docs/runbooks/(\w+)\.md", RULE_FILES[1].read_text()))
    assert pages == linked == set(alert_names()), f"pages {pages}, linked {linked}, alerts {set(alert_names())}"


def alert_names() -> list[str]:
    return re.findall(r"- alert: (\w+)", RULE_FILES[1].read_text())


def links_have_targets() -> None:
    dead = documents.dead_links()
    assert not dead, f"dead links: {dead}"


def panels_are_described(dashboard: dashboards.Dashboard) -> None:
    for panel in dashboard.panels:
        assert len(panel.get("description", "")) > 20, f"{panel['title']} has no description"
        assert panel["fieldConfig"]["defaults"].get("unit"), f"{panel['title']} has no unit"
        for target in panel["targets"]:
            assert "vector(" not in target["expr"], f"{panel['title']} has invented data"


def promtool(*arguments: str | Path) -> None:
    run("promtool", *arguments)


# --- against the real programs ----------------------------------------------------------------------------------------


def check_programs(stack: ExitStack) -> None:
    temporary = tempfile.TemporaryDirectory(prefix="closewatch-mixin-", ignore_cleanup_errors=True)
    directory = Path(stack.enter_context(temporary))

    def start(name: str, *arguments: str, configuration: dict | None = None) -> Closewatch:
        program = binary("debug")
        return stack.enter_context(Closewatch(directory, program, *arguments, configuration=configuration, name=name))

    demo = start("demo", "demo")
    configuration = {
        "upstream": f"ws://{demo.public}",
        "admin": {"control": True},
        "timeouts": {"close": "500ms"},
    }
    sidecar = start("sidecar", configuration=configuration)
    leaving = start("leaving", configuration=configuration)
    webhook = Webhook(stack)
    alertmanager = stack.enter_context(Alertmanager(directory, webhook.url))
    prometheus = stack.enter_context(Prometheus(directory, [demo, sidecar, leaving], alertmanager.address))
    eventually("three closewatches are scraped", lambda: prometheus.value("count(up == 1)") == 3)
    clients = [open_session(sidecar) for _ in range(LOST_SESSIONS)]

    check("a sidecar has the number of series of docs/scale.md", number_of_series_is_documented, prometheus, sidecar)
    check("sessions end in ways that the demo does not have", make_endings, sidecar, prometheus)
    check("a closewatch drains", make_drain, leaving)
    check("a panel without data is a fault", missing_data_is_a_fault, prometheus)
    for dashboard in dashboards.all_dashboards():
        variables = dashboard.variables(prometheus)
        for query in dashboard.queries():
            check(query.where, returns_data, query, variables, prometheus)
    for recipe in documents.recipes():
        query = Query(recipe.where, recipe.expr, instant=True, labels=set())
        if recipe.history:
            check(recipe.where, prometheus.query, recipe.expr)
        else:
            check(recipe.where, returns_data, query, {}, prometheus)
    check("every family is on a dashboard", families_are_shown, demo)
    check("every rule can be evaluated", rules_are_healthy, prometheus)
    arrival = "the alert for a killed server arrives at the webhook"
    check(arrival, server_loss_is_alerted, demo, clients, prometheus, webhook)


def number_of_series_is_documented(prometheus: Prometheus, sidecar: Closewatch) -> None:
    stated = re.search(r"A sidecar at rest has (\d+) series", (ROOT / "docs/scale.md").read_text())
    assert stated, "docs/scale.md has no number of series of a sidecar at rest"
    measured = prometheus.value(f'min_over_time(scrape_samples_scraped{{instance="{sidecar.admin}"}}[1m])')
    assert abs(measured - int(stated[1])) <= 0.05 * measured, f"documented {stated[1]}, measured {measured:.0f}"


def open_session(closewatch: Closewatch) -> Client:
    client = Client(closewatch.public)
    expect(client.receive_status() == 101, "the upgrade is refused")
    return client


def make_endings(sidecar: Closewatch, prometheus: Prometheus) -> None:
    # The server does not answer the client's Close frame: the client sees 1006, the server 1000.
    unanswered = open_session(sidecar)
    unanswered.say("silent")
    unanswered.close(1000)
    unanswered.read_to_end()
    # An unmasked frame is a violation.
    rude = open_session(sidecar)
    rude.say("hello", masked=False)
    rude.read_to_end()
    assert Client(sidecar.public, "/status/503").receive_status() == 503
    fetch(f"http://{sidecar.public}/")
    # A client that does not read.
    slow = open_session(sidecar)
    slow.say("flood 300 65536")
    held = f'websocket_buffered_bytes{{instance="{sidecar.admin}", from="server", route="default"}}'
    eventually("bytes are held for a slow reader", lambda: prometheus.value(held))
    slow.reset()
    sidecar.post("/-/reload")


def make_drain(leaving: Closewatch) -> None:
    clients = [open_session(leaving) for _ in range(3)]
    leaving.post("/-/drain")
    for client in clients:
        client.await_close()
        client.close(1001)
        client.read_to_end()
    eventually(
        "three drained sessions",
        lambda: leaving.scrape().total("websocket_proxy_actions_total", action="drain", route="default") == 3,
    )


def missing_data_is_a_fault(prometheus: Prometheus) -> None:
    for expr in (
        "websocket_sessions_lost_total",
        'websocket_sessions_active{route="nowhere"}',
        "vector(0) / vector(0)",
    ):
        fault = dashboards.fault(Query("", expr, instant=True, labels=set()), {}, prometheus)
        assert fault and fault.startswith("no data"), f"{expr}: {fault}"
    fault = dashboards.fault(Query("", "websocket_sessions_active", instant=True, labels={"rout"}), {}, prometheus)
    assert fault and fault.startswith("no label rout"), fault


def returns_data(query: Query, variables: dict[str, str], prometheus: Prometheus) -> None:
    try:
        eventually("data", lambda: dashboards.fault(query, variables, prometheus) is None)
    except Failure:
        raise Failure(dashboards.fault(query, variables, prometheus) or "the data arrived too late") from None


def families_are_shown(demo: Closewatch) -> None:
    shown = " ".join(query.expr for dashboard in dashboards.all_dashboards() for query in dashboard.queries())
    families = re.findall(r"^# TYPE ((?:websocket|closewatch)_\w+)", demo.scrape().text, re.M)
    missing = [family for family in families if family not in shown]
    assert families and not missing, f"not shown: {missing}"


def rules_are_healthy(prometheus: Prometheus) -> None:
    def evaluated() -> list[dict]:
        rules = prometheus.rules()
        return [] if any(rule["health"] == "unknown" for rule in rules) else rules

    rules = eventually("every rule is evaluated", evaluated)
    unhealthy = [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] != "ok"]
    assert not unhealthy, unhealthy


def server_loss_is_alerted(demo: Closewatch, clients: list[Client], prometheus: Prometheus, webhook: Webhook) -> None:
    name = "WebSocketServerLossBurst"
    # The alert reads the recorded series.
    sessions = 'job_route:websocket_sessions_active:sum{route="default"}'
    eventually(f"{LOST_SESSIONS} sessions in Prometheus", lambda: prometheus.value(sessions) >= LOST_SESSIONS)
    assert not webhook.firing(name), "the alert fires before a server is killed"
    demo.kill()
    alert = eventually("the alert", lambda: webhook.firing(name))[0]
    assert alert["labels"]["route"] == "default" and alert["labels"]["job"] == "closewatch", alert
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md", alert
    for client in clients:
        client.hang_up()


if __name__ == "__main__":
    sys.exit(main())
