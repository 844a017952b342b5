"""The queries that the documents offer: every block of PromQL in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```promql( history)?\n(.*?)^```$", re.M | re.S)


@dataclass
class Recipe:
    """One query; `history` says that it needs more of it than a test has."""

    where: str
    expr: str
    history: bool


def everyone() -> Iterator[Recipe]:
    for file in [*sorted(ROOT.glob("README*.md")), *sorted(ROOT.glob("docs/**/*.md"))]:
        for history, block in BLOCK.findall(file.read_text()):
            # A block may hold several, each a paragraph.
            for expr in block.strip().split("\n\n"):
                yield Recipe(f"{file.relative_to(ROOT)}: {_first_line(expr)}", expr, bool(history))


def _first_line(expr: str) -> str:
    return expr.partition("\n")[0].removeprefix("# ")
