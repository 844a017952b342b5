"""A real Prometheus, a real Alertmanager, and a webhook that records alerts."""

import json
import re
import threading
import time
import urllib.parse
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from closewatch import ROOT, Closewatch, Failure, Process, fetch

RULES = ROOT / "deploy/prometheus"

# A scrape twice a second, so that a rate has its samples within seconds.
SCRAPE_INTERVAL = "500ms"
EVALUATION_INTERVAL = "1s"


class Prometheus(Process):
    """Scrapes these closewatches with the target labels of the Prometheus operator. One of them is `endpoint`."""

    def __init__(self, directory: Path, targets: list[Closewatch], alertmanager: str | None = None) -> None:
        scrape = {
            "job_name": "closewatch",
            "honor_labels": True,
            "static_configs": [{"targets": [target.admin], "labels": operator_labels(target)} for target in targets],
        }
        configuration = {
            "global": {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": EVALUATION_INTERVAL},
            "rule_files": [
                str(_without_intervals(RULES / name, directory)) for name in ("recording.yaml", "alerts.yaml")
            ],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager] if alertmanager else []}]}]},
            "scrape_configs": [scrape],
        }
        file = directory / "prometheus.json"
        # JSON is YAML.
        file.write_text(json.dumps(configuration))
        super().__init__(
            directory,
            "prometheus",
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={directory / 'prometheus'}",
            "--web.listen-address=127.0.0.1:0",
        )
        self._api = f"http://{self.printed(LISTENING)}/api/v1"
        self.printed(r"(Server is ready)")

    def query(self, expr: str) -> list[dict]:
        """The vector that an expression returns now. Each series has one value."""
        result = self._get("query", query=expr)["result"]
        return [{**series, "values": [series["value"]]} for series in result]

    def query_range(self, expr: str, seconds: int, step: int = 1) -> list[dict]:
        """The matrix that an expression returns for the last seconds."""
        now = time.time()
        return self._get("query_range", query=expr, start=now - seconds, end=now, step=step)["result"]

    def value(self, expr: str) -> float:
        """The value of the first series, or 0 without a series."""
        vector = self.query(expr)
        return float(vector[0]["value"][1]) if vector else 0.0

    def label_values(self, label: str, selector: str) -> list[str]:
        return self._get(f"label/{label}/values", **{"match[]": selector})

    def rules(self) -> list[dict]:
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **parameters: object) -> dict | list:
        answer = json.loads(fetch(f"{self._api}/{path}?{urllib.parse.urlencode(parameters)}", any_status=True))
        if answer["status"] != "success":
            raise Failure(f"{answer['error']}: {parameters}")
        return answer["data"]


class Alertmanager(Process):
    """Sends every alert to a webhook at once."""

    def __init__(self, directory: Path, webhook: str) -> None:
        configuration = {
            "route": {"receiver": "webhook", "group_wait": "0s", "group_interval": "1s"},
            "receivers": [{"name": "webhook", "webhook_configs": [{"url": webhook}]}],
        }
        file = directory / "alertmanager.json"
        file.write_text(json.dumps(configuration))
        super().__init__(
            directory,
            "alertmanager",
            "prometheus-alertmanager",
            f"--config.file={file}",
            f"--storage.path={directory / 'alertmanager'}",
            "--web.listen-address=127.0.0.1:0",
            "--cluster.listen-address=",
        )
        self.address = self.printed(LISTENING)


class Webhook:
    """A receiver of alerts."""

    def __init__(self, stack: ExitStack) -> None:
        self.alerts: list[dict] = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)

    def firing(self, name: str) -> list[dict]:
        return [alert for alert in self.alerts if alert["status"] == "firing" and alert["labels"]["alertname"] == name]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        alerts = self.alerts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                alerts.extend(json.loads(body)["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


LISTENING = r'msg="Listening on" address=(127\.0\.0\.1:\d+)'


def operator_labels(target: Closewatch) -> dict[str, str]:
    return {"namespace": "demo", "pod": target.name, "container": "closewatch", "endpoint": "metrics"}


def _without_intervals(rules: Path, directory: Path) -> Path:
    """A copy of the rules without intervals of their own, which are minutes."""
    copy = directory / rules.name
    copy.write_text(re.sub(r"^ +interval: .*\n", "", rules.read_text(), flags=re.M))
    return copy
