"""One client library and one server library, first without closewatch, then through closewatch."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

from closewatch import Closewatch, Scrape, eventually, status_of
from counting import Counts, check_growth, check_record, counts, summary
from expectations import Ending, Saw, closed, lost
from libraries import CLIENT, SERVER, Close, Library
from messages import KINDS, Kind
from peer import Peer
from table import Row

CODES = (1000, 1001, 1005, 1008, 1011, 1012, 1013, 1014, 3000, 4001, 4999)
REASON = "a reason: ✓"

# Each breakdown can take a whole timeout, so a pair with this many is not run to its end.
MOST_BREAKDOWNS = 3


@dataclass(frozen=True)
class Session:
    """An open session, and its extensions: the offer and the agreement as each end received them."""

    client: Peer
    server: Peer
    offered: str | None
    agreed: dict[str, str | None]

    def peer(self, role: str) -> Peer:
        return self.client if role == CLIENT else self.server


class Pair:
    """Runs every case. Each is one session through closewatch, after one without it unless an end is killed."""

    def __init__(self, client: Library, server: Library, program: Path | None, directory: Path) -> None:
        self.libraries = {CLIENT: client, SERVER: server}
        self.rows: list[Row] = []
        self._program = program
        self._directory = directory
        self._peers: dict[str, Peer] = {}
        self._closewatch: Closewatch | None = None
        self._breakdowns = 0
        self._sessions = 0
        self._counts: Counts = {}
        self._last_session: str | None = None

    @property
    def name(self) -> str:
        return f"{self.libraries[CLIENT].name} → {self.libraries[SERVER].name}"

    async def run(self) -> None:
        try:
            for what, case in self._cases():
                await self._run_case(Row(what), case)
        finally:
            await self._end()

    def _cases(self) -> list[tuple[str, Callable[[Row], Coroutine]]]:
        cases: list[tuple[str, Callable[[Row], Coroutine]]] = [("opening handshake", self._opening)]
        cases += [(kind.name, lambda row, kind=kind: self._message(row, kind)) for kind in KINDS]
        for role in (CLIENT, SERVER):
            cases += [(f"{role} closes {code}", lambda row, a=(role, code): self._close(row, *a)) for code in CODES]
        cases += [(f"{role} killed", lambda row, role=role: self._kill(row, role)) for role in (CLIENT, SERVER)]
        if self._program:
            cases += [("exposition", self._exposition), ("at rest", self._rest)]
        return cases

    async def _run_case(self, row: Row, case: Callable[[Row], Awaitable]) -> None:
        self.rows.append(row)
        if self._breakdowns == MOST_BREAKDOWNS:
            row.failures.append("not run: this pair breaks down too often")
            return
        try:
            await self._start()
            await case(row)
        except Exception as failure:
            self._breakdowns += 1
            row.failures.append(f"{type(failure).__name__}: {failure}")
            if self._closewatch:
                row.failures.append(f"closewatch's last lines:\n{self._closewatch.output}")
            # The next case starts everything again.
            await self._end()
        row.close()

    async def _start(self) -> None:
        """Starts everything at the beginning, and later the programs that a case has killed."""
        for role in (SERVER, CLIENT):
            if role not in self._peers:
                self._peers[role] = await Peer.start(self.libraries[role], role, self._directory)
        if self._program and not self._closewatch:
            arguments = ("run", "--upstream", self._direct_url)
            self._closewatch = await asyncio.to_thread(Closewatch, self._directory, self._program, *arguments)
            self._sessions = 0
            self._counts = counts(await self._scrape())

    async def _end(self) -> None:
        for role in list(self._peers):
            await self._peers.pop(role).end()
        if self._closewatch:
            await asyncio.to_thread(self._closewatch.kill)
            self._closewatch = None

    @property
    def _url(self) -> str:
        return f"ws://{self._closewatch.public}"

    @property
    def _direct_url(self) -> str:
        return f"ws://127.0.0.1:{self._peers[SERVER].port}"

    def _ways(self) -> list[tuple[str, str]]:
        """The URLs to connect to, each with a prefix for its failures."""
        direct = [("without closewatch, ", self._direct_url)]
        return [*direct, ("", self._url)] if self._closewatch else direct

    async def _open(self, url: str) -> Session:
        client, server = self._peers[CLIENT], self._peers[SERVER]
        await client.do("connect", url=url + "/")
        if self._closewatch and url == self._url:
            self._sessions += 1
        at_client, at_server = await client.expect("open"), await server.expect("open")
        agreed = {CLIENT: at_client["extensions"], SERVER: at_server["extensions"]}
        return Session(client, server, at_server["offer"], agreed)

    async def _opening(self, row: Row) -> None:
        sessions = []
        for way, url in self._ways():
            session = await self._open(url)
            sessions.append((session.offered, session.agreed))
            await self._close_session(row, way, session, CLIENT, Close(1000, ""))
        row.check("offer and agreement", sessions[-1], sessions[0])
        row.reported = {CLIENT: f"agreed: {session.agreed[CLIENT]}", SERVER: f"offered: {session.offered}"}
        record = await self._count(row, closed(self.libraries, CLIENT, Close(1000, "")))
        if record:
            row.check("extensions in the record", record["extensions"] or None, session.agreed[CLIENT])

    async def _message(self, row: Row, kind: Kind) -> None:
        """The same message both ways, in its own session."""
        sent = {}
        for way, url in self._ways():
            session = await self._open(url)
            sent = {role: await self._send(row, way, session, role, kind) for role in (CLIENT, SERVER)}
            await self._close_session(row, way, session, CLIENT, Close(1000, ""))
        row.reported = {CLIENT: _arrival(sent[SERVER]), SERVER: _arrival(sent[CLIENT])}
        record = await self._count(row, closed(self.libraries, CLIENT, Close(1000, "")))
        if record:
            for role, was_sent in sent.items():
                counts = record[f"from_{role}"]
                row.check(f"messages from the {role}", counts["messages"], int(was_sent))
                enough = counts["frames"] >= kind.fragments * was_sent + 1
                row.check(f"{counts['frames']} frames from the {role} are enough", enough, True)
            frames = " + ".join(str(record[f"from_{role}"]["frames"] - 1) for role in sent)
            row.counted = f"{frames} data frames; {row.counted}"

    async def _send(self, row: Row, way: str, session: Session, role: str, kind: Kind) -> bool:
        sender, receiver = session.peer(role), session.peer(SERVER if role == CLIENT else CLIENT)
        await sender.do("send", fragments=kind.fragments, **kind.payload)
        if kind.fragments > 1 and sender.library.refuses_fragments:
            error = (await sender.expect("refused"))["error"]
            row.check(f"{way}error of the {role}", sender.library.refuses_fragments in error, True)
            row.note(f"{sender.library.name}: {error}")
            return False
        received = await receiver.expect("message")
        if {**kind.payload, "event": "message"} != received:
            row.failures.append(f"{way}the message from the {role} did not arrive unchanged")
        return True

    async def _close(self, row: Row, role: str, code: int) -> None:
        library = self.libraries[role]
        refusal = dict(library.refuses).get(code)
        for way, url in self._ways():
            session = await self._open(url)
            if refusal:
                await self._check_refusal(row, way, session.peer(role), code, refusal)
                ending = await self._close_session(row, way, session, role, Close(1000, ""))
            elif failure := dict(library.breaks_on).get(code):
                ending = await self._break(row, way, session, role, code, failure)
            else:
                ending = await self._close_session(row, way, session, role, Close(code, "" if code == 1005 else REASON))
        await self._count(row, ending)
        if refusal:
            row.reported[role] = f"(refused {code}, then) {row.reported[role]}"

    async def _check_refusal(self, row: Row, way: str, peer: Peer, code: int, refusal: str) -> None:
        await _ask_to_close(peer, Close(code, REASON))
        error = (await peer.expect("refused"))["error"]
        row.check(f"{way}its error", refusal in error, True)
        row.note(error)

    async def _break(self, row: Row, way: str, session: Session, role: str, code: int, failure: str) -> Ending:
        await _ask_to_close(session.peer(role), Close(code, ""))
        ending = lost(self.libraries, role, can_report=True)
        events = await self._check_events(row, way, session, ending)
        error = events[role]["message"] or ""
        row.check(f"{way}its error", failure in error, True)
        row.note(f"{self.libraries[role].name} cannot send an empty Close frame, and hangs up: {error}")
        return ending

    async def _close_session(self, row: Row, way: str, session: Session, role: str, close: Close) -> Ending:
        await _ask_to_close(session.peer(role), close)
        ending = closed(self.libraries, role, close)
        await self._check_events(row, way, session, ending)
        for note in ending.notes:
            row.note(note)
        return ending

    async def _kill(self, row: Row, role: str) -> None:
        url = self._url if self._closewatch else self._direct_url
        session = await self._open(url)
        await self._peers.pop(role).end()
        ending = lost(self.libraries, role, can_report=False)
        await self._check_events(row, "", session, ending)
        row.reported[role] = "(killed)"
        await self._count(row, ending)

    async def _check_events(self, row: Row, way: str, session: Session, ending: Ending) -> dict[str, dict]:
        """Compares the close event of each side with the expected one, and returns the events."""
        events = {role: await session.peer(role).expect("close") for role in ending.reports}
        for role, event in events.items():
            reported = Saw(event["code"], event["reason"], event["clean"])
            row.reported[role] = str(reported)
            row.check(f"{way}the {role} reported", str(reported), str(ending.reports[role]))
        return events

    async def _count(self, row: Row, ending: Ending) -> dict | None:
        """Compares the record and the metrics of the session that has just ended with the expected ones."""
        if not self._closewatch:
            row.counted = "(no closewatch)"
            return None
        record = await asyncio.to_thread(eventually, "a new record", self._new_record)
        self._last_session = record["session"]
        check_record(row, record, ending)
        await self._count_metrics(row, ending)
        row.counted = summary(record)
        return record

    async def _count_metrics(self, row: Row, ending: Ending) -> None:
        before = self._counts
        closes = self._sessions

        def after_the_close() -> Scrape | None:
            scrape = self._closewatch.scrape()
            is_closed = scrape.total("websocket_closes_total") == closes
            return scrape if is_closed and not scrape.total("websocket_sessions_active") else None

        scrape = await asyncio.to_thread(eventually, "a close in /metrics, and no active session", after_the_close)
        self._counts = counts(scrape)
        check_growth(row, before, self._counts, ending)

    def _new_record(self) -> dict | None:
        """The newest record, unless it is known already."""
        records = self._closewatch.closes(limit=1)
        return records[0] if records and records[0]["session"] != self._last_session else None

    async def _scrape(self) -> Scrape:
        return await asyncio.to_thread(self._closewatch.scrape)

    async def _exposition(self, row: Row) -> None:
        """promtool finds no fault in a scrape after all these sessions."""
        scrape = await self._scrape()
        result = await asyncio.to_thread(status_of, "promtool", "check", "metrics", input=scrape.text)
        row.check("promtool check metrics", result, (0, "", ""))
        row.reported = {CLIENT: "(not involved)", SERVER: "(not involved)"}
        row.counted = "promtool check metrics: no fault"

    async def _rest(self, row: Row) -> None:
        """At the end the sums hold, and closewatch ends after SIGTERM."""
        scrape = await self._scrape()
        row.check("handshakes with 101", scrape.total("websocket_handshakes_total", status=101), self._sessions)
        row.check("active sessions", scrape.total("websocket_sessions_active"), 0)
        for name, found, expected in scrape.sums():
            row.check(name, found, expected)
        closes = scrape.total("websocket_closes_total")
        unclean = scrape.total("websocket_closes_total", clean="false")
        row.check("exit code after SIGTERM", await asyncio.to_thread(self._closewatch.terminate), 0)
        row.reported = {CLIENT: f"{self._sessions} sessions opened", SERVER: "(the same)"}
        row.counted = f"{closes:.0f} closes, {unclean:.0f} of them not clean; the sums hold; exit 0"


async def _ask_to_close(peer: Peer, close: Close) -> None:
    await peer.do("close", code=None if close.code == 1005 else close.code, reason=close.reason)


def _arrival(was_sent: bool) -> str:
    return "received unchanged" if was_sent else "(could not be sent)"
