"""What the network layer costs: the hot order read with all policies, with none, and with each one left out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from cpu import CpuWatch
from devstack.layout import Layout
from devstack.options import POLICIES
from measured import HotRead, Layer, Share, mean_of

BACKEND = Path(sys.executable).parent / "backend"
# Everything that a hot read touches. (The User service is left out: the login before each measurement is its work.)
_PROCESSES = ("edge", "bff", "order", "limiter", "valkey")
_ROUNDS = 3


async def measure(layout: Layout, up: Sequence[str], read: Callable[[], Awaitable[HotRead]]) -> Layer:
    """Restart the stack with each choice of policies and measure, in turns: the machine is not the same twice.

    A policy's share is taken in CPU time and not in rate, which differs more from one measurement to the next than
    most policies cost.

    Args:
        layout: of a stack that runs.
        up: the arguments of `backend up`.
        read: the hot read.
    """
    choices: dict[str, tuple[str, ...]] = {
        "nothing": (), "everything": POLICIES, **{policy: (policy,) for policy in POLICIES}
    }  # fmt: skip
    reads: dict[str, list[HotRead]] = {name: [] for name in choices}
    costs: dict[str, list[float]] = {name: [] for name in choices}
    for _ in range(_ROUNDS):
        for name, policies in choices.items():
            subprocess.run([BACKEND, "down", "--data-dir", str(layout.data_dir)], check=True, capture_output=True)
            left_out = [part for policy in policies for part in ("--without", policy)]
            subprocess.run([BACKEND, "up", "--detach", *up, *left_out], check=True, capture_output=True)
            await read()
            watch = CpuWatch(layout)
            measured = await read()
            used = watch.seconds()
            reads[name].append(measured)
            costs[name].append(sum(used[process] for process in _PROCESSES) / measured.requests * 1e6)
            print(f"without {name}: {measured.rate:,.0f}/s, {costs[name][-1]:.0f} µs of CPU a request", flush=True)
    whole = _share(costs["nothing"])
    return Layer(
        whole=mean_of(reads["nothing"]),
        bare=mean_of(reads["everything"]),
        cpu=whole,
        bare_cpu=_share(costs["everything"]),
        policies={
            policy: Share(whole.microseconds - without.microseconds, max(whole.spread, without.spread))
            for policy in POLICIES
            for without in [_share(costs[policy])]
        },
    )


def _share(measured: list[float]) -> Share:
    # What else the machine does only adds.
    least, next_least, *_ = sorted(measured)
    return Share(least, next_least - least)
