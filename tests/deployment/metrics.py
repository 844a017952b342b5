"""What an admin's /metrics tell."""

# A Python program that prints what stands at a URL: to be run where the admin can be reached.
GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


def open_sessions(exposition: str) -> int:
    """The sessions that are open, on all routes."""
    samples = [line for line in exposition.splitlines() if line.startswith("websocket_sessions_active{")]
    return sum(int(sample.split()[-1]) for sample in samples)
