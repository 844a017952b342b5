"""Holds what closewatch told of one session, record and metrics, against what it should have told."""

from closewatch import Counts, labels
from expectations import Ending, Saw
from libraries import CLIENT, SERVER
from table import Row

# What one session's end makes grow; everything else in these families must stand still.
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


def check_record(row: Row, record: dict, ending: Ending) -> None:
    for key in ("code", "initiator", "clean", "cause", "cause_endpoint"):
        row.check(key, record[key], getattr(ending, key))
    row.check("reason", record["reason"] or "", ending.reason)
    row.check("action", record["action"], None)
    for role, saw in ending.saw.items():
        told = record[f"{role}_saw"]
        row.check(f"{role}_saw", str(Saw(told["code"], told["reason"] or "", told["clean"])), str(saw))


def check_growth(row: Row, before: Counts, after: Counts, ending: Ending) -> None:
    wanted = _growth_by(ending)
    grown = {key: value - before.get(key, 0) for key, value in after.items() if key[0] in FAMILIES}
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
        ("websocket_handshakes_total", labels(status=101)): 1,
        ("websocket_closes_total", labels(code=ending.code, initiator=ending.initiator, clean=clean)): 1,
        ("websocket_close_views_total", labels(**{role: _class(saw.code) for role, saw in ending.saw.items()})): 1,
    }
    for role, saw in ending.saw.items():
        event = labels(endpoint=role, code=saw.code, clean=str(saw.clean).lower())
        wanted["websocket_close_events_total", event] = 1
    for role, code in ending.frames.items():
        wanted["websocket_close_frames_total", labels(**{"from": role, "code": code})] = 1
    if ending.cause:
        wanted["websocket_abnormal_closes_total", labels(endpoint=ending.cause_endpoint, cause=ending.cause)] = 1
    return wanted


def _class(code: int) -> str:
    return str(code) if code < 3000 else f"{code // 1000}xxx"
