"""The expected counts and records, for each way in which a session ends.

They follow from RFC 6455, section 7.1, and from the documentation of closewatch, for the Close frames of the libraries. No output of closewatch is used.
"""

from dataclasses import dataclass

from libraries import CLIENT, SERVER, Close, Library, Oddity


@dataclass(frozen=True)
class Saw:
    """A close event. A value that a library does not report is None, and is not compared."""

    code: int | None
    reason: str | None
    clean: bool | None

    def __str__(self) -> str:
        reason = f' "{self.reason}"' if self.reason else ""
        clean = {True: " clean", False: " not clean", None: ""}[self.clean]
        return f"{self.code}{reason}{clean}"


@dataclass(frozen=True)
class Ending:
    """The end of one session: the counts of closewatch, and the close event of each library."""

    code: int
    reason: str
    initiator: str
    clean: bool
    cause: str | None
    cause_endpoint: str | None
    # The close event of each endpoint, by the Close frames that it received.
    saw: dict[str, Saw]
    # The close event of each library. A killed endpoint has none.
    reports: dict[str, Saw]
    # The codes of the Close frames sent, by sender.
    frames: dict[str, int]
    notes: tuple[str, ...] = ()


def other(role: str) -> str:
    return SERVER if role == CLIENT else CLIENT


def closed(libraries: dict[str, Library], initiator: str, close: Close) -> Ending:
    """A closing handshake: `initiator` sends `close`, and the other library answers in its way."""
    answering = other(initiator)
    answer, odd_answer = _made_of(close, libraries[answering].odd_answers, answering)
    reported, odd_report = _made_of(close, libraries[answering].odd_reports, answering)
    reason_of_answer = answer.reason if libraries[initiator].reports_reason_of_answer else None
    return Ending(
        code=close.code,
        reason=close.reason,
        initiator=initiator,
        clean=True,
        cause=None,
        cause_endpoint=None,
        saw={initiator: Saw(answer.code, answer.reason, True), answering: Saw(close.code, close.reason, True)},
        reports={
            initiator: Saw(answer.code, reason_of_answer, libraries[initiator].reports_clean or None),
            answering: Saw(reported.code, reported.reason, libraries[answering].reports_clean or None),
        },
        frames={initiator: close.code, answering: answer.code},
        notes=odd_answer + odd_report,
    )


def lost(libraries: dict[str, Library], endpoint: str, can_report: bool) -> Ending:
    """`endpoint` hangs up without a Close frame: its program failed, or was killed and reports nothing."""
    saw = Saw(1006, "", False)
    reporters = (CLIENT, SERVER) if can_report else (other(endpoint),)
    return Ending(
        code=1006,
        reason="",
        initiator=endpoint,
        clean=False,
        cause="eof",
        cause_endpoint=endpoint,
        saw={CLIENT: saw, SERVER: saw},
        reports={role: _loss_reported_by(libraries[role]) for role in reporters},
        frames={},
    )


def _made_of(close: Close, oddities: tuple[Oddity, ...], role: str) -> tuple[Close, tuple[str, ...]]:
    for oddity in oddities:
        if oddity.applies(role, close):
            return oddity.makes, (oddity.note,)
    return close, ()


def _loss_reported_by(library: Library) -> Saw:
    reason = "" if library.reports_reason_of_answer else None
    return Saw(1006, reason, False if library.reports_clean else None)
