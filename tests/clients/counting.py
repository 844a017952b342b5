"""Compares the record and the metrics of one session with the expected ones."""

from collections import Counter

from closewatch import Scrape
from expectations import Ending, Saw
from libraries import CLIENT, SERVER
from table import Row

# One session changes some series of these families. All other series of them stay the same.
FAMILIES = frozenset(
    {
        "websocket_handshakes_total",
        "websocket_handshake_failures_total",
        "websocket_closes_total",
        "websocket_close_events_total",
        "websocket_close_views_total",
        "websocket_close_frames_total",
        "websocket_abnormal_closes_total",
        "websocket_proxy_actions_total",
        "websocket_protocol_violations_total",
    }
)


# Values by family and labels. Every session is on the default route: the label `route` is left out.
Counts = dict[tuple[str, frozenset[tuple[str, str]]], float]


def counts(scrape: Scrape) -> Counts:
    """The samples of the families above."""
    counts = Counter()
    for name, labels, value in scrape.samples:
        if name in FAMILIES:
            counts[name, frozenset(label for label in labels.items() if label[0] != "route")] += value
    return counts


def check_record(row: Row, record: dict, ending: Ending) -> None:
    for key in ("code", "initiator", "clean", "cause", "cause_endpoint"):
        row.check(key, record[key], getattr(ending, key))
    row.check("reason", record["reason"] or "", ending.reason)
    row.check("action", record["action"], None)
    for role, saw in ending.saw.items():
        recorded = record[f"{role}_saw"]
        row.check(f"{role}_saw", str(Saw(recorded["code"], recorded["reason"] or "", recorded["clean"])), str(saw))


def check_growth(row: Row, before: Counts, after: Counts, ending: Ending) -> None:
    wanted = _growth_by(ending)
    grown = {key: value - before.get(key, 0) for key, value in after.items()}
    for key in sorted(grown.keys() | wanted.keys(), key=repr):
        row.check(f"{key[0]}{dict(key[1])} grew by", grown.get(key, 0), wanted.get(key, 0))


def summary(record: dict) -> str:
    views = " | ".join(str(record[f"{role}_saw"]["code"]) for role in (CLIENT, SERVER))
    cause = f", {record['cause']} of {record['cause_endpoint']}" if record["cause"] else ""
    clean = "clean" if record["clean"] else "not clean"
    return f"{record['code']} by {record['initiator']}, {clean}{cause}; saw {views}"


def _growth_by(ending: Ending) -> Counts:
    clean = str(ending.clean).lower()
    wanted: Counts = {
        ("websocket_handshakes_total", _labels(status=101)): 1,
        ("websocket_closes_total", _labels(code=ending.code, initiator=ending.initiator, clean=clean)): 1,
        ("websocket_close_views_total", _labels(**{role: _class(saw.code) for role, saw in ending.saw.items()})): 1,
    }
    for role, saw in ending.saw.items():
        event = _labels(endpoint=role, code=saw.code, clean=str(saw.clean).lower())
        wanted["websocket_close_events_total", event] = 1
    for role, code in ending.frames.items():
        wanted["websocket_close_frames_total", _labels(**{"from": role, "code": code})] = 1
    if ending.cause:
        wanted["websocket_abnormal_closes_total", _labels(endpoint=ending.cause_endpoint, cause=ending.cause)] = 1
    return wanted


def _labels(**values: object) -> frozenset[tuple[str, str]]:
    return frozenset((name, str(value)) for name, value in values.items())


def _class(code: int) -> str:
    return str(code) if code < 3000 else f"{code // 1000}xxx"
