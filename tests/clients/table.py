"""The printed table: one row for each case, with the reports of each side."""

import sys
from dataclasses import dataclass, field

from libraries import CLIENT, SERVER

WIDTHS = {"what": 20, CLIENT: 44, SERVER: 44}


@dataclass
class Row:
    """One row: the case, the report of each side, and the counts of closewatch."""

    what: str
    reported: dict[str, str] = field(default_factory=dict)
    counted: str = ""
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def check(self, what: str, got: object, wanted: object) -> None:
        if got != wanted:
            self.failures.append(f"{what}: {got!r} instead of {wanted!r}")

    def close(self) -> None:
        """No cell of a passing row is empty: a case that is impossible has a text, too."""
        cells = {CLIENT: self.reported.get(CLIENT), SERVER: self.reported.get(SERVER), "counted": self.counted}
        for column, text in cells.items():
            if not text and not self.failures:
                self.failures.append(f"the cell `{column}` is empty")


def print_table(title: str, rows: list[Row]) -> None:
    print(f"\n{title}")
    print(_line("", "", "client reported", "server reported", "closewatch counted"))
    for row in rows:
        _print_row(row)
    sys.stdout.flush()


def _print_row(row: Row) -> None:
    verdict = "FAIL" if row.failures else "ok"
    print(_line(verdict, row.what, row.reported.get(CLIENT, ""), row.reported.get(SERVER, ""), row.counted))
    for note in row.notes:
        print(f"      {'':{WIDTHS['what']}} note: {note}")
    for failure in row.failures:
        print("      " + failure.replace("\n", "\n        "))


def _line(verdict: str, what: str, client: str, server: str, counted: str) -> str:
    columns = f"{what:{WIDTHS['what']}} {client:{WIDTHS[CLIENT]}} {server:{WIDTHS[SERVER]}} {counted}"
    return f"{verdict:5} {columns}".rstrip()
