"""The JSON of the dashboards: the panels, and their queries as Grafana sends them."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from closewatch import ROOT
from monitoring import Prometheus

DIRECTORY = ROOT / "deploy/grafana/dashboards"

# Grafana computes these from the scrape interval and from the time range of the dashboard.
RATE_INTERVAL, RANGE, RANGE_SECONDS = "10s", "60s", 60


@dataclass
class Query:
    """One query of a panel or an annotation, with its variables."""

    where: str
    expr: str
    instant: bool
    # The labels in the legend or in the columns of the table.
    labels: set[str]


class Dashboard:
    def __init__(self, file: Path) -> None:
        self.model = json.loads(file.read_text())
        self.title = self.model["title"]

    @property
    def panels(self) -> list[dict]:
        rows = (panel.get("panels", []) if panel["type"] == "row" else [panel] for panel in self.model["panels"])
        return [panel for row in rows for panel in row]

    def queries(self) -> Iterator[Query]:
        for panel in self.panels:
            for target in panel["targets"]:
                where = f"{self.title}: {panel['title']} {target['refId']}"
                yield Query(where, target["expr"], target.get("instant", False), _labels(panel, target))
        for annotation in self.model.get("annotations", {}).get("list", []):
            labels = _placeholders(annotation["titleFormat"])
            yield Query(f"{self.title}: annotation {annotation['name']}", annotation["target"]["expr"], False, labels)

    def variables(self, prometheus: Prometheus) -> dict[str, str]:
        """Each variable, with all its values as a regular expression."""
        values = {"__rate_interval": RATE_INTERVAL, "__range": RANGE}
        for variable in self.model["templating"]["list"]:
            if variable["type"] == "query":
                values[variable["name"]] = _all_values(variable, values, prometheus)
        return values


def all_dashboards() -> list[Dashboard]:
    return [Dashboard(file) for file in sorted(DIRECTORY.glob("*.json"))]


def fault(query: Query, variables: dict[str, str], prometheus: Prometheus) -> str | None:
    """The fault of the result of a query, if it has one."""
    expr = substitute(query.expr, variables)
    series = prometheus.query(expr) if query.instant else prometheus.query_range(expr, RANGE_SECONDS)
    with_data = [one for one in series if any(math.isfinite(float(value)) for _, value in one["values"])]
    if not with_data:
        return f"no data: {expr}"
    missing = query.labels - {label for one in with_data for label in one["metric"]}
    return f"no label {', '.join(sorted(missing))}: {expr}" if missing else None


def substitute(expr: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda match: variables.get(match[1], match[0]), expr)


def _all_values(variable: dict, values: dict[str, str], prometheus: Prometheus) -> str:
    query = substitute(variable["query"]["query"], values)
    selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", query).groups()
    chosen = re.compile(variable.get("regex", "").strip("/"))
    values = [value for value in prometheus.label_values(label, selector) if chosen.search(value)]
    # One escape for the regular expression, and one for the string around it.
    return "|".join(re.escape(value).replace("\\", "\\\\") for value in values)


def _labels(panel: dict, target: dict) -> set[str]:
    columns = {
        column
        for transformation in panel.get("transformations", [])
        for column in transformation["options"]["renameByName"]
        if column != "Value"
    }
    return columns | _placeholders(target.get("legendFormat", ""))


def _placeholders(text: str) -> set[str]:
    return set(re.findall(r"{{(\w+)}}", text))
