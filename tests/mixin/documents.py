"""The Markdown of the project: its queries and its links."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from closewatch import ROOT

PROMQL = re.compile(r"^```promql( history)?\n(.*?)^```$", re.M | re.S)
CODE = re.compile(r"^```.*?^```$|^ {4}.*?$|`[^`]*`", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.M)


@dataclass
class Recipe:
    """One query. With `history`, it needs more history than a test has."""

    where: str
    expr: str
    history: bool


def recipes() -> Iterator[Recipe]:
    for file in _files():
        for history, block in PROMQL.findall(file.read_text()):
            # A block may have several queries, one per paragraph.
            for expr in block.strip().split("\n\n"):
                title = expr.partition("\n")[0].removeprefix("# ")
                yield Recipe(f"{file.relative_to(ROOT)}: {title}", expr, bool(history))


def dead_links() -> list[str]:
    """The links to files or headings that do not exist."""
    return [
        f"{file.relative_to(ROOT)}: {link}"
        for file in _files()
        for link in LINK.findall(CODE.sub("", file.read_text()))
        if "://" not in link and not _has_target(file, link)
    ]


def _has_target(file: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = file.parent / path if path else file
    return target.exists() and (not anchor or anchor in _anchors(target))


def _anchors(file: Path) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = HEADING.findall(file.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _files() -> list[Path]:
    listing = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md")
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).exists()]
