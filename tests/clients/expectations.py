"""What must be counted and told, for each way in which a session ends here.

These are the rules of RFC 6455 7.1 and of closewatch's documentation, applied to Close frames that the libraries are
known to send: nothing here asks closewatch anything.
"""

from dataclasses import dataclass

from libraries import CLIENT, SERVER, Close, Library, Oddity


@dataclass(frozen=True)
class Saw:
    """What a close event tells. None stands where a library has no word, and then it is not compared."""

    code: int | None
    reason: str | None
    clean: bool | None

    def __str__(self) -> str:
        reason = f' "{self.reason}"' if self.reason else ""
        clean = {True: " clean", False: " not clean", None: ""}[self.clean]
        return f"{self.code}{reason}{clean}"


@dataclass(frozen=True)
class Ending:
    """One session's end: what closewatch counts, and what each library says of it."""

    code: int
    reason: str
    initiator: str
    clean: bool
    cause: str | None
    cause_endpoint: str | None
    # What each endpoint saw, by the Close frames that reached it.
    saw: dict[str, Saw]
    # What its library's own close event says; nothing of an endpoint that was killed.
    says: dict[str, Saw]
    # The codes of the Close frames sent, by sender.
    frames: dict[str, int]
    notes: tuple[str, ...] = ()


def other(role: str) -> str:
    return SERVER if role == CLIENT else CLIENT


def closed(libraries: dict[str, Library], initiator: str, close: Close) -> Ending:
    """A closing handshake: `initiator` sends `close`, the other endpoint answers as its library does."""
    answering = other(initiator)
    answer, odd_answer = _made_of(close, libraries[answering].odd_answers, answering)
    told, odd_report = _made_of(close, libraries[answering].odd_reports, answering)
    reason_of_answer = answer.reason if libraries[initiator].tells_reason_of_answer else None
    return Ending(
        code=close.code,
        reason=close.reason,
        initiator=initiator,
        clean=True,
        cause=None,
        cause_endpoint=None,
        saw={initiator: Saw(answer.code, answer.reason, True), answering: Saw(close.code, close.reason, True)},
        says={
            initiator: Saw(answer.code, reason_of_answer, libraries[initiator].tells_clean or None),
            answering: Saw(told.code, told.reason, libraries[answering].tells_clean or None),
        },
        frames={initiator: close.code, answering: answer.code},
        notes=odd_answer + odd_report,
    )


def lost(libraries: dict[str, Library], endpoint: str, can_speak: bool) -> Ending:
    """`endpoint` hangs up without a Close frame: its program failed, or was killed (and then can say nothing)."""
    saw = Saw(1006, "", False)
    speakers = (CLIENT, SERVER) if can_speak else (other(endpoint),)
    return Ending(
        code=1006,
        reason="",
        initiator=endpoint,
        clean=False,
        cause="eof",
        cause_endpoint=endpoint,
        saw={CLIENT: saw, SERVER: saw},
        says={role: _loss_told_by(libraries[role]) for role in speakers},
        frames={},
    )


def _made_of(close: Close, oddities: tuple[Oddity, ...], role: str) -> tuple[Close, tuple[str, ...]]:
    for oddity in oddities:
        if oddity.applies(role, close):
            return oddity.makes, (oddity.note,)
    return close, ()


def _loss_told_by(library: Library) -> Saw:
    reason = "" if library.tells_reason_of_answer else None
    return Saw(1006, reason, False if library.tells_clean else None)
