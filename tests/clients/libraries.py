"""The libraries under test, and their known differences from RFC 6455 and from each other.

Every oddity was observed and is printed in the table. The matrix fails as soon as a release no longer has it.
closewatch causes none of them: the same is expected of two libraries without closewatch.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from closewatch import target_directory

PEERS = Path(__file__).parent / "peers"

CLIENT, SERVER = "client", "server"


@dataclass(frozen=True)
class Close:
    """A Close frame, or the value of an API for one: 1005 without a code, None without a value."""

    code: int
    reason: str | None


@dataclass(frozen=True)
class Oddity:
    """A library turns a Close frame into another one."""

    note: str
    makes: Close
    # The code of the Close frame, and the role of the library. None stands for all of them.
    meets: int | None = None
    role: str | None = None

    def applies(self, role: str, close: Close) -> bool:
        return self.meets in (None, close.code) and self.role in (None, role) and close != self.makes


@dataclass(frozen=True)
class Library:
    name: str
    program: tuple[str, ...]
    roles: tuple[str, ...] = (CLIENT, SERVER)
    # Codes that its close() refuses to send, and a part of the error. The connection stays open.
    refuses: tuple[tuple[int, str], ...] = ()
    # Codes that its close() fails to send, and a part of the error. It hangs up without a Close frame.
    breaks_on: tuple[tuple[int, str], ...] = ()
    # A part of its error if it cannot send a message in fragments.
    refuses_fragments: str | None = None
    # Close frames that it does not answer with an echo, and Close frames that its close event reports differently.
    odd_answers: tuple[Oddity, ...] = ()
    odd_reports: tuple[Oddity, ...] = ()
    # Whether its close event has a wasClean, and a reason for the answer to its Close frame and for a loss.
    reports_clean: bool = True
    reports_reason_of_answer: bool = True


NODE_WS = Library("node-ws", ("node", str(PEERS / "node_ws.mjs")))

PYTHON_WEBSOCKETS = Library("python-websockets", (sys.executable, str(PEERS / "python_websockets.py")))

AIOHTTP = Library(
    "aiohttp",
    (sys.executable, str(PEERS / "python_aiohttp.py")),
    breaks_on=((1005, "required argument is not an integer"),),
    refuses_fragments="got an unexpected keyword argument 'fin'",
    odd_answers=(Oddity("aiohttp answers every Close frame with a bare 1000", Close(1000, "")),),
    odd_reports=(
        Oddity("an aiohttp client reports an empty Close frame as 1006", Close(1006, ""), meets=1005, role=CLIENT),
        Oddity("an aiohttp server reports an empty Close frame as 0", Close(0, ""), meets=1005, role=SERVER),
    ),
    reports_clean=False,
    reports_reason_of_answer=False,
)

TUNGSTENITE = Library(
    "tungstenite",
    (str(target_directory() / "debug" / "examples" / "tungstenite-peer"),),
    odd_answers=(Oddity("tungstenite answers 1014 with 1002", Close(1002, "Protocol violation"), meets=1014),),
    odd_reports=(Oddity("tungstenite reports 1014 as 1002", Close(1002, "Protocol violation"), meets=1014),),
    reports_clean=False,
)

_BROWSERS_CLOSE = "The close code must be either 1000, or between 3000 and 4999"
CHROMIUM = Library(
    "chromium",
    ("node", str(PEERS / "chromium.mjs")),
    roles=(CLIENT,),
    refuses=tuple((code, _BROWSERS_CLOSE) for code in (1001, 1008, 1011, 1012, 1013, 1014)),
    refuses_fragments="a browser's send() has no fragments",
)

ALL = (NODE_WS, PYTHON_WEBSOCKETS, AIOHTTP, TUNGSTENITE, CHROMIUM)
