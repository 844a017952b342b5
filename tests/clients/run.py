"""Real clients and servers through closewatch: prints the whole matrix. The last line is `N passed, N failed`.

    python run.py [--direct] [--client NAME] [--server NAME]

With --direct, the libraries talk to each other without closewatch. This shows whether the expectations fit them.
CLOSEWATCH_BIN names the program to test. The default is the debug build.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import libraries
from closewatch import binary
from libraries import SERVER
from pair import Pair
from table import print_table


def main() -> int:
    options = _options()
    program = None if options.direct else binary("debug")
    print(f"program under test: {program or 'none, only the libraries'}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="closewatch-clients-", ignore_cleanup_errors=True) as directory:
        pairs = asyncio.run(_run_all(_pairs(options, program, Path(directory))))
    rows = [row for pair in pairs for row in pair.rows]
    failed = sum(bool(row.failures) for row in rows)
    print(f"\n{len(pairs)} pairs in {time.monotonic() - started:.0f} s")
    print(f"{len(rows) - failed} passed, {failed} failed")
    return 1 if failed or not rows else 0


def _options() -> argparse.Namespace:
    names = [library.name for library in libraries.ALL]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--direct", action="store_true", help="without closewatch")
    parser.add_argument("--client", choices=names, help="only this client")
    parser.add_argument("--server", choices=names, help="only this server")
    return parser.parse_args()


def _pairs(options: argparse.Namespace, program: Path | None, directory: Path) -> list[Pair]:
    pairs = []
    for client in libraries.ALL:
        for server in (library for library in libraries.ALL if SERVER in library.roles):
            if options.client in (None, client.name) and options.server in (None, server.name):
                own = directory / f"{client.name}-{server.name}"
                own.mkdir()
                pairs.append(Pair(client, server, program, own))
    return pairs


async def _run_all(pairs: list[Pair]) -> list[Pair]:
    """Runs one pair per CPU at a time, and prints each table as soon as its pair is done."""
    # SIGTERM must end every peer, too.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    free = asyncio.Semaphore(len(os.sched_getaffinity(0)))

    async def run(pair: Pair) -> None:
        async with free:
            started = time.monotonic()
            await pair.run()
            print_table(f"{pair.name}  ({time.monotonic() - started:.1f} s)", pair.rows)

    await asyncio.gather(*(run(pair) for pair in pairs))
    return pairs


if __name__ == "__main__":
    sys.exit(main())
