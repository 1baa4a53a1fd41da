"""Order reads that come at a steady share of what the machine can serve: how many are refused although there is room.

    .venv/bin/python tools/bench/steady.py --share 0.4 --seconds 60

Admission learns what is normal from what it serves, and may take a noisy machine for a full one: a false alarm. What can
be served is what 32 connections get that ask without a pause, by the same load generator on the same cores (k6).
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from bench import Bench
from devstack.layout import Layout
from measured import Steady

OFFSET = 5000
SHARE, SECONDS = 0.4, 60


async def measure(bench: Bench, share: float = SHARE, seconds: int = SECONDS) -> Steady:
    """Reads of a started and prepared stack at a share of what it can serve."""
    await bench.renew_token()
    peak = bench.k6("order_read", 32).rate
    await bench.renew_token()
    return bench.steady("order_read", share * peak, seconds)


async def run(bench: Bench, shares: list[float], seconds: int) -> None:
    """Print each share's refusals."""
    bench.start()
    await bench.prepare()
    for share in shares:
        found = await measure(bench, share, seconds)
        print(
            f"{share} of what can be served, {found.rate:,.0f}/s: {found.requests:,} requests, {found.failed:,} refused, "
            f"{found.unsent:,} not sent in time",
            flush=True,
        )


def main() -> None:
    """Measure on a stack of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, action="append", help=f"of what can be served; {SHARE} without")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of one measurement at a share")
    parser.add_argument("--port-offset", type=int, default=OFFSET, help="of the stack")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        bench = Bench(Layout(Path(directory) / "stack", arguments.port_offset), min(6, arguments.seconds))
        try:
            asyncio.run(run(bench, arguments.share or [SHARE], arguments.seconds))
        finally:
            bench.stop()


if __name__ == "__main__":
    main()
