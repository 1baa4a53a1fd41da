"""Run the console until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
from datetime import UTC, datetime
from pathlib import Path

from mesh.topology import CONSOLE

from devstack.console.server import Server
from devstack.console.spans import SpanWriter

_REMOVAL_SECONDS = 30.0


def say(what: str, level: str = "warning") -> None:
    """A line of its log; lost when the disk is full."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    with contextlib.suppress(OSError):
        print(json.dumps({"time": moment, "level": level, "service": CONSOLE, "event": what}), flush=True)


async def run(spans: Path, port: int) -> None:
    """Serve until SIGTERM."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    writer = SpanWriter(spans)
    server = await Server(writer, port, say).start()
    say("started", "info")
    while not stopping.is_set():
        try:
            async with asyncio.timeout(_REMOVAL_SECONDS):
                await stopping.wait()
        except TimeoutError:
            writer.remove_old()
    server.close()
    writer.close()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spans", type=Path, help="directory that spans are kept in")
    parser.add_argument("port", type=int, help="to listen on, of 127.0.0.1")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.spans, arguments.port))


if __name__ == "__main__":
    main()
