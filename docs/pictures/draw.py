#!/usr/bin/env python3
"""Draws two panels of the dashboard from the demo's own data: closes.svg, beside this file.

    cargo build --release
    docs/pictures/draw.py target/release/closewatch

This runs `closewatch demo` and a real Prometheus that scrapes it for six minutes. Then it sends Prometheus the panels'
own queries from deploy/grafana/dashboards/closewatch.json, and draws the last five minutes of the answers. In the fourth
of these minutes it adds RESETS sessions whose server resets the connection.

It needs only `prometheus` (the Debian package) and Python 3.11. Titles, queries, units and names of series come from the
dashboard; Grafana is not involved.
"""

import math
import re
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "tests" / name) for name in ("support", "mixin")]

import dashboards
from closewatch import Closewatch
from monitoring import Prometheus
from websocket import Client

TITLES = ["Endings by code", "Endpoint and cause"]
# The rate interval of Grafana for a scrape interval of 15 s.
RATE_INTERVAL, RATE_SECONDS = "1m", 60
SHOWN_SECONDS, STEP_SECONDS = 300, 5
CALM_SECONDS, RESETS, REST_SECONDS = RATE_SECONDS + 180, 90, 60

# The units of these panels in Grafana.
UNITS = {"cps": "c/s"}


@dataclass
class Series:
    """One line of a panel's legend. `values` has one value for each step, 0 without a sample."""

    name: str
    values: list[float]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)


@dataclass
class Panel:
    title: str
    unit: str
    times: list[int]
    series: list[Series]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    program = Path(sys.argv[1]).resolve()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        demo = stack.enter_context(Closewatch(directory, program, "demo"))
        prometheus = stack.enter_context(Prometheus(directory, [demo]))
        time.sleep(CALM_SECONDS)
        add_resets(demo)
        time.sleep(REST_SECONDS)
        panels = [ask(title, prometheus) for title in TITLES]
    (HERE / "closes.svg").write_text(draw(panels))


def add_resets(demo: Closewatch) -> None:
    """For a minute, the server resets one session after the other."""
    for _ in range(RESETS):
        client = Client(demo.public)
        client.receive_status()
        client.say("abort")
        client.read_to_end()
        client.hang_up()
        time.sleep(60 / RESETS)


# --- the data ---------------------------------------------------------------------------------------------------------


def ask(title: str, prometheus: Prometheus) -> Panel:
    dashboard = dashboards.Dashboard(dashboards.DIRECTORY / "closewatch.json")
    [panel] = [panel for panel in dashboard.panels if panel["title"] == title]
    [target] = panel["targets"]
    variables = dashboard.variables(prometheus) | {"__rate_interval": RATE_INTERVAL}
    expr = dashboards.substitute(target["expr"], variables)
    matrix = prometheus.query_range(expr, SHOWN_SECONDS, STEP_SECONDS)
    times = sorted({int(at) for one in matrix for at, _ in one["values"]})
    series = [Series(legend(target["legendFormat"], one["metric"]), at_each(times, one["values"])) for one in matrix]
    seen = [one for one in series if any(one.values)]
    seen.sort(key=lambda one: one.mean, reverse=True)
    return Panel(title, UNITS[panel["fieldConfig"]["defaults"]["unit"]], times, seen)


def legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), template)


def at_each(times: list[int], values: list[list]) -> list[float]:
    known = {int(at): float(value) for at, value in values}
    return [known.get(at, 0.0) for at in times]


# --- the drawing ------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, GAP = 880, 300, 12
LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT = 64, 44, 452, 216
LEGEND_X, LINE_HEIGHT = 548, 18

# Its own background makes it readable on light and dark pages.
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #c7ccd4 }
.title { font-size: 15px; font-weight: 600; fill: #f1f3f6 }
.dim { fill: #949ba6 }
.right { text-anchor: end }
.middle { text-anchor: middle }
.ground { fill: #16191f; stroke: #343a45 }
.grid { stroke: #2b313b }
"""
RED = "#f2495c"
OTHERS = (
    "#56a64b #3f8fe0 #ffb357 #a979db #37c3c0 #f780bf #d4c13c #7f8fa6 #96d98d #8ab8ff #ff7f50 #b07d5b #e0e0e0".split()
)


def draw(panels: list[Panel]) -> str:
    height = len(panels) * (HEIGHT + GAP) - GAP
    body = "\n".join(
        f'<g transform="translate(0 {index * (HEIGHT + GAP)})">\n{draw_panel(panel)}\n</g>'
        for index, panel in enumerate(panels)
    )
    titles = " and ".join(panel.title for panel in panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
        f"<title>{escape(titles)}, drawn from the data of closewatch demo</title>\n"
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def draw_panel(panel: Panel) -> str:
    ceiling = round_up(max(map(sum, zip(*(one.values for one in panel.series), strict=True))))
    return "\n".join(
        [
            f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="4"/>',
            f'<text class="title" x="16" y="26">{escape(panel.title)}</text>',
            *value_axis(ceiling, panel.unit),
            *time_axis(panel.times),
            *areas(panel.series, ceiling),
            *draw_legend(panel),
        ]
    )


def round_up(value: float) -> float:
    """The next value that divides well into four steps."""
    step = 10 ** math.floor(math.log10(value))
    return next(step * factor for factor in (1, 2, 4, 6, 8, 10) if step * factor >= value)


def value_axis(ceiling: float, unit: str) -> list[str]:
    lines = []
    for quarter in range(5):
        at = TOP + PLOT_HEIGHT * (1 - quarter / 4)
        lines.append(f'<path class="grid" d="M{LEFT} {at:g}h{PLOT_WIDTH}"/>')
        lines.append(f'<text class="dim right" x="{LEFT - 8}" y="{at + 4:g}">{ceiling * quarter / 4:g} {unit}</text>')
    return lines


def time_axis(times: list[int]) -> list[str]:
    lines = []
    for at in times:
        if at // 60 > (at - STEP_SECONDS) // 60:
            x = LEFT + PLOT_WIDTH * (at - times[0]) / (times[-1] - times[0])
            clock = datetime.fromtimestamp(at, UTC).strftime("%H:%M")
            lines.append(f'<text class="dim middle" x="{x:.0f}" y="{TOP + PLOT_HEIGHT + 20}">{clock}</text>')
    return lines


def areas(series: list[Series], ceiling: float) -> list[str]:
    """The stacked series, with the largest at the bottom."""
    count = len(series[0].values)
    xs = [LEFT + PLOT_WIDTH * index / (count - 1) for index in range(count)]
    floor = [0.0] * count
    paths = []
    for one, colour in zip(series, colours(series), strict=True):
        roof = [below + value for below, value in zip(floor, one.values, strict=True)]
        outline = [*zip(xs, roof, strict=True), *reversed(list(zip(xs, floor, strict=True)))]
        points = " ".join(f"{x:.0f},{TOP + PLOT_HEIGHT * (1 - y / ceiling):.1f}" for x, y in outline)
        paths.append(f'<polygon points="{points}" fill="{colour}" fill-opacity=".85"/>')
        floor = roof
    return paths


def draw_legend(panel: Panel) -> list[str]:
    right, mean = WIDTH - 16, WIDTH - 80
    lines = [
        f'<text class="dim right" x="{mean}" y="26">mean</text>',
        f'<text class="dim right" x="{right}" y="26">max</text>',
    ]
    for index, (one, colour) in enumerate(zip(panel.series, colours(panel.series), strict=True)):
        y = TOP + 4 + index * LINE_HEIGHT
        lines += [
            f'<rect x="{LEGEND_X}" y="{y - 4}" width="14" height="4" fill="{colour}"/>',
            f'<text x="{LEGEND_X + 22}" y="{y + 2}">{escape(one.name)}</text>',
            f'<text class="right" x="{mean}" y="{y + 2}">{one.mean:.2f}</text>',
            f'<text class="right" x="{right}" y="{y + 2}">{max(one.values):.2f}</text>',
        ]
    return lines


def colours(series: list[Series]) -> list[str]:
    """One colour for each series, red for the added resets."""
    others = cycle(OTHERS)
    return [RED if one.name.startswith(("1006", "server: reset")) else next(others) for one in series]


if __name__ == "__main__":
    main()
