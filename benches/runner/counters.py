"""Compares closewatch's counters with the load generator's, so that a proxy that does not look cannot win."""

import re
import time
import urllib.request
from collections import Counter

# Families whose series are all predicted, including those at 0. Sums over routes.
CHECKED = """
    websocket_handshakes_total websocket_handshake_failures_total websocket_handshakes_in_progress
    websocket_handshake_duration_seconds_count websocket_upstream_connect_duration_seconds_count
    websocket_sessions_active websocket_closes_total websocket_close_events_total websocket_close_views_total
    websocket_close_frames_total websocket_abnormal_closes_total websocket_proxy_actions_total
    websocket_session_duration_seconds_count websocket_idle_before_close_seconds_count
    websocket_close_handshake_duration_seconds_count websocket_frames_total websocket_messages_total
    websocket_message_size_bytes_count websocket_message_size_bytes_sum websocket_bytes_total
    websocket_buffered_bytes websocket_protocol_violations_total closewatch_http_requests_total
    closewatch_connections_active closewatch_connections_accepted_total closewatch_connections_rejected_total
""".split()
# Counters of live sessions may be a second behind, and a scrape takes time.
PATIENCE = 2.0

SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def scrape(admin):
    """The text of /metrics."""
    with urllib.request.urlopen(f"{admin}/metrics", timeout=30) as response:
        return response.read().decode()


def differences(admin, totals):
    """The series of /metrics that differ from the load generator; empty if all are exact."""
    expected = _expected(totals)
    deadline = time.monotonic() + PATIENCE
    while True:
        found = _found(scrape(admin))
        wrong = [
            f"{_series(key)}: {found[key]:.17g} instead of {expected[key]}"
            for key in sorted(found.keys() | expected.keys())
            if found[key] != expected[key]
        ]
        if not wrong or time.monotonic() > deadline:
            return wrong
        time.sleep(0.05)


def _found(text):
    found = Counter()
    for name, labels, value in SAMPLE.findall(text):
        if name in CHECKED:
            labels = frozenset(label for label in LABEL.findall(labels) if label[0] != "route")
            found[name, labels] += float(value)
    return found


def _expected(totals):
    expected = Counter()

    def expect(name, value, **labels):
        expected[name, frozenset(labels.items())] += value

    sessions, messages, closed = totals["sessions"], totals["messages"], sum(totals["closes"].values())
    expect("websocket_handshakes_total", sessions, status="101")
    expect("websocket_handshake_duration_seconds_count", sessions, outcome="upgraded")
    expect("websocket_upstream_connect_duration_seconds_count", sessions)
    expect("websocket_sessions_active", totals["active"])
    expect("closewatch_connections_accepted_total", sessions)
    expect("closewatch_connections_active", totals["active"])
    expect("websocket_close_handshake_duration_seconds_count", closed, initiator="client")
    for endpoint in ("client", "server"):
        expect("websocket_frames_total", messages, opcode="binary", **{"from": endpoint})
        expect("websocket_frames_total", closed, opcode="close", **{"from": endpoint})
        expect("websocket_messages_total", messages, type="binary", **{"from": endpoint})
        expect("websocket_message_size_bytes_count", messages, **{"from": endpoint})
        expect("websocket_message_size_bytes_sum", totals["payload_bytes"], **{"from": endpoint})
        expect("websocket_bytes_total", totals[f"{endpoint}_bytes"], **{"from": endpoint})
    for code, count in totals["closes"].items():
        group = code if int(code) < 3000 else f"{code[0]}xxx"
        expect("websocket_closes_total", count, code=code, initiator="client", clean="true")
        expect("websocket_close_views_total", count, client=group, server=group)
        expect("websocket_session_duration_seconds_count", count, code=group)
        expect("websocket_idle_before_close_seconds_count", count, code=group)
        for endpoint in ("client", "server"):
            expect("websocket_close_events_total", count, endpoint=endpoint, code=code, clean="true")
            expect("websocket_close_frames_total", count, code=code, **{"from": endpoint})
    return expected


def _series(key):
    name, labels = key
    return name + "{" + ",".join(f'{label}="{value}"' for label, value in sorted(labels)) + "}"
