"""docs/performance.md, from what was measured."""

from __future__ import annotations

import os
import platform as machine
import sysconfig
from datetime import UTC, datetime
from pathlib import Path

import telemetry
from measured import Measured
from steady import SHARE

FLOOR_RATIO, FLOOR_P99_MS, FLOOR_CREATE, MOST_LAYER = 0.05, 45.0, 0.25, 0.20


def page(measured: Measured) -> str:
    """The Markdown of docs/performance.md."""
    by = {(r.name, r.connections): r for r in measured.scenarios}
    read, create = by["order_read", 32], by["order_create", 32]
    read_rate, read_p99 = (measured.peak.rate, measured.peak.p99) if measured.peak else (read.rate, read.p99)
    baseline, memory, layer = measured.pgbench, measured.memory, measured.layer
    processor = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        machine.processor(),
    )
    lines = [
        "# Performance\n",
        f"Written by `python {measured.command}` (`make bench` runs it with its defaults) on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores ({processor}), Python "
        # Without --enable-optimizations and --with-lto, a request costs 6 to 12 % more CPU.
        f"{machine.python_version()} (configured with `{sysconfig.get_config_var('CONFIG_ARGS')}`), {measured.seconds} s a measurement, 100,000 orders in the database, the load generator on the "
        "same cores. Ratios are taken within this run.\n",
        "## What was promised\n",
        "| promise | measured | holds |",
        "|---|---|---|",
        f"| order read, hot, 32 connections: at least {FLOOR_RATIO:.0%} of pgbench's rate for the same SQL | "
        f"{read_rate:,.0f}/s of {baseline:,.0f}/s = {read_rate / baseline:.1%} | {_yes(read_rate / baseline >= FLOOR_RATIO)} |",
        f"| its p99 under {FLOOR_P99_MS:.0f} ms | {read_p99:.1f} ms | {_yes(read_p99 < FLOOR_P99_MS)} |",
        f"| order create: at least a quarter of the order read's rate (both k6) | {create.rate:,.0f}/s of "
        f"{read.rate:,.0f}/s = {create.rate / read.rate:.0%} | {_yes(create.rate / read.rate >= FLOOR_CREATE)} |",
    ]
    steady = measured.steady
    lines.append(
        f"| order read, steady, at {SHARE} of what can be served (`tools/bench/steady.py`): nothing refused | "
        f"{steady.failed:,} of {steady.requests:,} at {steady.rate:,.0f}/s | {_yes(steady.failed == 0)} |"
    )
    cost = 1 - layer.whole.rate / layer.bare.rate
    lines.append(
        f"| the network layer (docs/network.md): at most {MOST_LAYER:.0%} of the rate | {layer.whole.rate:,.0f}/s with, "
        f"{layer.bare.rate:,.0f}/s without = {cost:.1%} | {_yes(cost <= MOST_LAYER)} |"
    )
    for kind, most in telemetry.BOUNDS.items():
        more = measured.tracing[kind].ratio - 1
        lines.append(
            f"| {kind} of the requests traced: at most {most:.0%} more CPU for an order read | {more:+.1%} | {_yes(more <= most)} |"
        )
    if len(memory) > 2:
        half = memory[len(memory) // 2 :]
        growth = half[-1][1] - half[0][1]
        lines.append(
            f"| {memory[-1][0]:,} hot reads: memory flat | {memory[0][1]:.0f} MiB before, {memory[-1][1]:.0f} MiB after; "
            f"{growth:+.1f} MiB in the second half | {_yes(growth < 5)} |"
        )
    lines += [
        "\nThe order read is a session check in Valkey and a versioned cache read behind two Envoy processes with Python "
        "inside; peak rates are wrk's where it is installed, for k6 itself takes most of a core.\n",
        "## Scenarios (k6)\n",
        "| scenario | connections | req/s | p50 ms | p99 ms | CPU of one core: edge · bff · user · order · limiter · postgres · valkey |",
        "|---|---|---|---|---|---|",
    ]
    for r in measured.scenarios:
        cpu = " · ".join(
            f"{r.cpu.get(name, 0):.0f} %" for name in ("edge", "bff", "user", "order", "limiter", "postgres", "valkey")
        )
        lines.append(f"| {r.name} | {r.connections} | {r.rate:,.0f} | {r.p50:.1f} | {r.p99:.1f} | {cpu} |")
    lines += [
        "\nA login is one Argon2id hash (19 MiB, two passes) on purpose: its rate is the hash's.\n",
        "## Where the time of a hot read goes\n",
        measured.profile,
        "## One hot read from Valkey, by client (`tools/bench/valkey_clients.py`)\n",
        "| client | CPU of an MGET |",
        "|---|---|",
        *(f"| {name} | {microseconds:.1f} µs |" for name, microseconds in measured.valkey_clients.items()),
    ]
    lines += [
        "\n## What the network layer costs (`tools/bench/layers.py`)\n",
        f"The hot read at 32 connections: {layer.whole.rate:,.0f}/s and p99 {layer.whole.p99:.1f} ms with every policy, "
        f"{layer.bare.rate:,.0f}/s and {layer.bare.p99:.1f} ms with none; in CPU time of all processes, {layer.cpu:.0f} µs a "
        "request with every policy. Below, what a request costs less with a policy left out: the median of pairs of neighbouring "
        "measurements on two stacks; half of the pairs lie within ±. The first row is two equal stacks: no share that is not "
        "well above it and its own ± says more than that the policy costs little. (Without mTLS there are no peer rules either.)\n",
        "| policy left out | CPU of a request | share |",
        "|---|---|---|",
        *(
            f"| {name} | {share.microseconds:+.0f} µs ± {share.spread:.0f} | {share.microseconds / layer.cpu:+.1%} |"
            for name, share in {"nothing": layer.nothing, "everything": layer.everything, **layer.policies}.items()
        ),
    ]
    lines += [
        "\n## What tracing costs (`tools/bench/telemetry.py`)\n",
        "The hot read at 32 connections on stacks that differ in nothing else, by turns, each round in another order; CPU of a "
        "request over all processes, the console's included, which in production is a collector on another machine.\n",
        *telemetry.table(measured.tracing),
    ]
    lines += [
        "\n## Sidecars (`tools/bench/topologies.py`)\n",
        "The hot read at 32 connections with the same policies; once as here, once with the BFF on uvicorn and Order on "
        "grpc.aio, an Envoy beside each.\n",
        "| topology | req/s | p99 ms |",
        "|---|---|---|",
        *(f"| {_TOPOLOGIES[name]} | {read.rate:,.0f} | {read.p99:.1f} |" for name, read in measured.topologies.items()),
    ]
    if len(memory) > 1:
        lines += ["\n## Memory of the five Envoy processes over hot reads\n", "| reads | MiB |", "|---|---|"]
        shown = [*memory[:: max(1, len(memory) // 10)], memory[-1]]
        lines += [f"| {reads:,} | {mebibytes:.1f} |" for reads, mebibytes in dict.fromkeys(shown)]
    return "\n".join(lines) + "\n"


_TOPOLOGIES = {"inside": "Python inside Envoy", "sidecars": "sidecar Envoys, uvicorn and grpc.aio"}


def _yes(holds: bool) -> str:
    return "yes" if holds else "**no**"
