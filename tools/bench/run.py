"""`make bench`: the platform beside pgbench running the same SQL, in one run; writes docs/performance.md.

Starts a stack of its own (every port 5,000 above the default), seeds 100,000 orders, and measures each scenario with k6 (thresholds) and,
where it is installed, wrk (peak rates). Ratios are taken within the run, because machines are noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import layers
import profile_hot_path
import steady
import telemetry
import topologies
import valkey_clients
from bench import Bench
from devstack.layout import ROOT, Layout
from measured import Measured, Scenario
from page import page

from devstack import services

OFFSET = 5000
CONCURRENCY = (1, 8, 32)
# Stacks that are traced more or less: how often they are started, and measured then.
_TRACING_STARTS, _TRACING_ROUNDS = 4, 4

# Where it begins.
BY_HAND = "\n<!-- below: by hand -->\n"


async def run(bench: Bench, other: Bench, reads: int) -> Measured:
    """Measure everything on one stack, the network layer's shares beside the other."""
    bench.start()
    bench.seed()
    await bench.prepare()
    baseline = bench.pgbench(32)
    print(f"pgbench, the same SQL, 32 connections: {baseline:,.0f}/s", flush=True)
    results: list[Scenario] = []
    for scenario in ("login", "products", "order_read", "order_create"):
        for connections in CONCURRENCY:
            await bench.renew_token()
            result = bench.k6(scenario, connections)
            results.append(result)
            print(f"{scenario} {connections}: {result.rate:,.0f}/s p99 {result.p99:.1f} ms", flush=True)
    at_a_share = await steady.measure(bench)
    print(
        f"order_read at {steady.SHARE} of its rate: {at_a_share.failed} of {at_a_share.requests:,} refused", flush=True
    )
    await bench.renew_token()
    peak = bench.wrk(f"/v1/orders/{bench.order.id}", 32)
    baseline_after = bench.pgbench(32)
    clients = await valkey_clients.measure(services.valkey_url(bench.layout, bench.secrets))
    await bench.renew_token()
    profile = profile_hot_path.profile(bench.layout, lambda: bench.wrk(f"/v1/orders/{bench.order.id}", 32))
    memory = await bench.memory(reads)
    layer = await layers.measure(bench, other)
    sidecars = await topologies.measure(bench)
    # On stacks of its own, of which there are several.
    bench.stop()
    tracing = telemetry.measure(telemetry.BOUNDS, _TRACING_STARTS, _TRACING_ROUNDS, min(bench.seconds, 3))
    return Measured(
        command=" ".join(["tools/bench/run.py", *sys.argv[1:]]),
        seconds=bench.seconds,
        scenarios=results,
        steady=at_a_share,
        pgbench=(baseline + baseline_after) / 2,
        peak=peak,
        valkey_clients=clients,
        profile=profile,
        memory=memory,
        layer=layer,
        topologies=sidecars,
        tracing=tracing,
    )


def written_by_hand(output: Path) -> str:
    """The end of the page that this does not measure, kept as it is."""
    _, marker, rest = output.read_text(encoding="utf-8").partition(BY_HAND) if output.exists() else ("", "", "")
    return marker + rest


def main() -> None:
    """Run the bench on a stack of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=6, help="length of one measurement")
    parser.add_argument("--reads", type=int, default=1_000_000, help="hot reads of the memory check")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "performance.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        whole, other = (
            Bench(Layout(Path(directory) / name, OFFSET + offset), arguments.seconds)
            for name, offset in (("stack", 0), ("other", 500))
        )
        try:
            measured = page(asyncio.run(run(whole, other, arguments.reads)))
            arguments.output.write_text(measured + written_by_hand(arguments.output), encoding="utf-8")
        finally:
            whole.stop()
            other.stop()
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
