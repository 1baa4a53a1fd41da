"""One address opens more connections at once than the edge may have, and again and again; others must be served.

`tools/connection_burst.py [--data-dir D] [--connections N] [--seconds N]` does it to a running stack, and exits 1 when it was
left with more than its share, or a newcomer was refused after the burst had been answered.
`tests/network/test_bounds.py` does it to an edge that may have few.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from devstack.layout import DEFAULT_DATA_DIR, Layout
from devstack.options import Options

from devstack import state

# A request whose body never comes: the edge waits for it as long as it waits for any.
_HALF_A_REQUEST = (
    b"POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n"
)
_TOP_UP = 40
_TOP_UP_EVERY_SECONDS = 0.15


def burst(port: int, address: str, count: int) -> list[socket.socket]:
    """Open so many connections as fast as one process can, each with half a request; some may be refused at once."""
    opened = []
    for _ in range(count):
        connection = socket.socket()
        connection.settimeout(0)
        connection.bind((address, 0))
        with suppress(BlockingIOError):
            connection.connect(("127.0.0.1", port))
        opened.append(connection)
    for connection in opened:
        with suppress(OSError):
            connection.send(_HALF_A_REQUEST)
    return opened


def still_open(connections: Sequence[socket.socket]) -> list[socket.socket]:
    """The connections that the edge keeps open without an answer; the others are closed here."""
    kept = []
    for connection in connections:
        try:
            connection.recv(1)
        except BlockingIOError:
            kept.append(connection)
            continue
        except OSError:
            pass
        connection.close()
    return kept


async def served(port: int, address: str) -> bool:
    """Whether the edge answers somebody new."""
    transport = httpx.AsyncHTTPTransport(local_address=address)
    async with httpx.AsyncClient(transport=transport, timeout=10) as http:
        try:
            return (await http.get(f"http://127.0.0.1:{port}/nothing")).status_code == 404
        except httpx.HTTPError:
            return False


async def _of_the_filter(ops: str, name: str) -> int:
    """A number of Envoy's filter that asks the limiter, of all listeners."""
    async with httpx.AsyncClient() as http:
        lines = (await http.get(f"{ops}/metrics/envoy")).text.splitlines()
    start = f'envoy_ratelimit_{name}{{envoy_ratelimit_prefix="connections"}}'
    return sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith(start))


@dataclass
class Seen:
    """What came of it."""

    # Connections that the address was left with.
    held: int
    # Let in because the limiter gave no answer.
    unasked: int
    # Seconds until somebody else was served; None when nobody was.
    first: float | None
    # Whether others were served, from then on.
    others: Counter[bool]


async def attack(port: int, ops: str, count: int, seconds: float) -> Seen:
    """A burst of so many connections from one address, and more for so many seconds, while others come one by one."""
    address, before = f"127.{random.randrange(1, 255)}.0.9", await _of_the_filter(ops, "failure_mode_allowed")
    began, first, others = time.monotonic(), None, Counter[bool]()
    held = await asyncio.to_thread(burst, port, address, count)
    while time.monotonic() < began + seconds:
        answered = await served(port, f"127.{random.randrange(1, 255)}.1.{random.randrange(1, 255)}")
        if answered and first is None:
            first = time.monotonic() - began
        if first is not None:
            others[answered] += 1
        held = still_open(held) + burst(port, address, _TOP_UP)
        await asyncio.sleep(_TOP_UP_EVERY_SECONDS)
    while await _of_the_filter(ops, "active"):
        await asyncio.sleep(0.1)
    held = still_open(held)
    for connection in held:
        connection.close()
    return Seen(len(held), await _of_the_filter(ops, "failure_mode_allowed") - before, first, others)


def main() -> int:
    """Attack, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=DEFAULT_DATA_DIR, help="of the stack")
    parser.add_argument("--connections", type=int, default=4300)
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    layout = Layout(arguments.data_dir.resolve())
    running = state.read(layout)
    if running is None or not running.ready:
        sys.exit(f"no stack runs on {arguments.data_dir}")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    port = int(running.endpoints["public"].rpartition(":")[2])
    ops = running.endpoints["edge_ops"]
    seen = asyncio.run(attack(port, ops, arguments.connections, arguments.seconds))
    print(f"held {seen.held} of {arguments.connections} and more; let in without an answer: {seen.unasked}")
    print(f"others: first served after {seen.first} s; from then on {seen.others[True]}, refused {seen.others[False]}")
    share = Options().max_connections // 16
    return 0 if seen.held <= share and not seen.unasked and seen.first is not None and not seen.others[False] else 1


if __name__ == "__main__":
    sys.exit(main())
