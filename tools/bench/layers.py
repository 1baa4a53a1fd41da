"""What the network layer costs: the hot order read with all policies, with none, and with each group left out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import mean

from devstack.layout import Layout
from devstack.options import POLICIES

BACKEND = Path(sys.executable).parent / "backend"
GROUPS = {
    "mTLS and peer rules": ("mtls", "peers"),
    "authentication": ("authentication", "doubled_credentials"),
    "rate limits": ("global_rate_limits", "local_rate_limits"),
    "access logs": ("access_log",),
    "adaptive concurrency": ("admission",),
    "replicas (health, outliers, circuits)": ("circuit_breakers", "outliers", "health_checks"),
    "headers, compression, CORS": ("security_headers", "compression", "cors"),
    "bounds (overload, connections, bodies)": ("overload", "connections", "body_limit"),
}
_ROUNDS = 2


async def measure(
    layout: Layout, up: Sequence[str], read: Callable[[], Awaitable[tuple[float, float]]]
) -> tuple[tuple[float, float], tuple[float, float], dict[str, float]]:
    """Restart the stack with each choice of policies and measure.

    Args:
        layout: of a stack that runs with all policies.
        up: the arguments of `backend up`.
        read: requests a second and p99 in milliseconds of the hot read.

    Returns:
        Rate and p99 with the whole layer, and without; then each group's share of the whole rate. With, without and
        without each are measured in turns, several times, and averaged: the machine is not the same twice.
    """

    async def without(policies: Sequence[str]) -> tuple[float, float]:
        subprocess.run([BACKEND, "down", "--data-dir", str(layout.data_dir)], check=True, capture_output=True)
        left_out = [part for policy in policies for part in ("--without", policy)]
        subprocess.run([BACKEND, "up", "--detach", *up, *left_out], check=True, capture_output=True)
        measured = await read()
        print(f"without {', '.join(policies) or 'nothing'}: {measured[0]:,.0f}/s, p99 {measured[1]:.1f} ms", flush=True)
        return measured

    whole, bare = [], []
    groups: dict[str, list[float]] = {name: [] for name in GROUPS}
    for _ in range(_ROUNDS):
        whole.append(await without(()))
        bare.append(await without(POLICIES))
        for name, policies in GROUPS.items():
            groups[name].append((await without(policies))[0])
    rate = mean(measured[0] for measured in whole)
    shares = {name: 1 - rate / mean(rates) for name, rates in groups.items()}
    return _mean(whole), _mean(bare), shares


def _mean(measured: list[tuple[float, float]]) -> tuple[float, float]:
    return mean(rate for rate, _ in measured), mean(p99 for _, p99 in measured)
