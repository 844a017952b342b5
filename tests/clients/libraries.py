"""The libraries under test, and what each is known to do differently from RFC 6455 and from its neighbours.

Every oddity was seen, stands in the printed table, and fails the matrix on the day that a new release no longer has
it. None is closewatch's doing: the same is expected of the two libraries without closewatch between them.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from closewatch import target_directory

PEERS = Path(__file__).parent / "peers"

CLIENT, SERVER = "client", "server"


@dataclass(frozen=True)
class Close:
    """A Close frame, or what an API makes of one: 1005 where it has no code. None: the library has no word for it."""

    code: int
    reason: str | None


@dataclass(frozen=True)
class Oddity:
    """What a library makes of a Close frame, where that is not the frame itself."""

    note: str
    makes: Close
    # The code it meets, and the role it has; None: whatever it is.
    meets: int | None = None
    role: str | None = None

    def applies(self, role: str, close: Close) -> bool:
        return self.meets in (None, close.code) and self.role in (None, role) and close != self.makes


@dataclass(frozen=True)
class Library:
    name: str
    program: tuple[str, ...]
    roles: tuple[str, ...] = (CLIENT, SERVER)
    # Codes that its close() will not send, each with words of its own error; the connection stays open.
    refuses: tuple[tuple[int, str], ...] = ()
    # The same, but the failing close() hangs up without a Close frame.
    breaks_on: tuple[tuple[int, str], ...] = ()
    # Words of its error where it cannot send a message in fragments.
    refuses_fragments: str | None = None
    # Close frames that it does not answer with an echo, and those that its close event tells differently.
    odd_answers: tuple[Oddity, ...] = ()
    odd_reports: tuple[Oddity, ...] = ()
    # Whether its close event has a wasClean, and tells the reason of the answer to its own Close frame; and of a loss.
    tells_clean: bool = True
    tells_reason_of_answer: bool = True


NODE_WS = Library("node-ws", ("node", str(PEERS / "node_ws.mjs")))

PYTHON_WEBSOCKETS = Library("python-websockets", (sys.executable, str(PEERS / "python_websockets.py")))

AIOHTTP = Library(
    "aiohttp",
    (sys.executable, str(PEERS / "python_aiohttp.py")),
    breaks_on=((1005, "required argument is not an integer"),),
    refuses_fragments="got an unexpected keyword argument 'fin'",
    odd_answers=(Oddity("aiohttp answers every Close frame with a bare 1000", Close(1000, "")),),
    odd_reports=(
        Oddity("an aiohttp client tells an empty Close frame as 1006", Close(1006, ""), meets=1005, role=CLIENT),
        Oddity("an aiohttp server tells an empty Close frame as 0", Close(0, ""), meets=1005, role=SERVER),
    ),
    tells_clean=False,
    tells_reason_of_answer=False,
)

TUNGSTENITE = Library(
    "tungstenite",
    (str(target_directory() / "debug" / "examples" / "tungstenite-peer"),),
    odd_answers=(Oddity("tungstenite answers 1014 with 1002", Close(1002, "Protocol violation"), meets=1014),),
    odd_reports=(Oddity("tungstenite tells 1014 as 1002", Close(1002, "Protocol violation"), meets=1014),),
    tells_clean=False,
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
