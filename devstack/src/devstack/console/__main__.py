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

from devstack.console.routes import Routes
from devstack.console.server import Server
from devstack.console.spans import SpanWriter
from devstack.layout import Layout

_REMOVAL_SECONDS = 30.0


def say(what: str, level: str = "warning") -> None:
    """A line of its log; lost when the disk is full."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    with contextlib.suppress(OSError):
        print(json.dumps({"time": moment, "level": level, "service": CONSOLE, "event": what}), flush=True)


async def run(layout: Layout) -> None:
    """Serve until SIGTERM."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    writer = SpanWriter(layout.spans)
    routes = Routes(layout, writer, say)
    server = await Server(routes.answer, layout.port(CONSOLE), say).start()
    rounds = asyncio.create_task(routes.rounds.run())
    say("started", "info")
    while not stopping.is_set():
        try:
            async with asyncio.timeout(_REMOVAL_SECONDS):
                await stopping.wait()
        except TimeoutError:
            writer.remove_old()
    rounds.cancel()
    server.close()
    writer.close()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port-offset", type=int, required=True)
    arguments = parser.parse_args()
    asyncio.run(run(Layout(arguments.data_dir, arguments.port_offset)))


if __name__ == "__main__":
    main()
