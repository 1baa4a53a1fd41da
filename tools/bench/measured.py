"""What the bench measures, as it is handed to the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple


@dataclass(frozen=True)
class Scenario:
    """One scenario by k6 at one number of connections."""

    name: str
    connections: int
    # Requests a second; milliseconds.
    rate: float
    p50: float
    p99: float
    # Percent of one core, by process, while it ran.
    cpu: Mapping[str, float]


class HotRead(NamedTuple):
    """The order read at 32 connections: requests a second, p99 in milliseconds, requests in all."""

    rate: float
    p99: float
    requests: int


class Steady(NamedTuple):
    """Requests that came at a steady rate a second: how many were sent, failed, and could not be sent in time."""

    rate: float
    requests: int
    failed: int
    unsent: int


def mean_of(reads: Sequence[HotRead]) -> HotRead:
    """The mean of several measurements of the same thing."""
    return HotRead(mean(r.rate for r in reads), mean(r.p99 for r in reads), sum(r.requests for r in reads))


class Share(NamedTuple):
    """CPU of one request in microseconds: the median of several measurements, and half of what their middle half spans."""

    microseconds: float
    spread: float


@dataclass(frozen=True)
class Layer:
    """The network layer: the hot read with all policies and with none; CPU of a request; what leaving out saves of it."""

    whole: HotRead
    bare: HotRead
    # Microseconds, with all policies.
    cpu: float
    # What is "saved" by leaving out nothing: how far two equal stacks differ, below which no share says anything.
    nothing: Share
    everything: Share
    policies: Mapping[str, Share]


@dataclass(frozen=True)
class TracingCost:
    """The hot read with some tracing, beside the same without any."""

    # Microseconds of CPU of a request over all processes, the median; and as a share of that without tracing: the median
    # of neighbouring measurements, and the middle half of them.
    cpu: float
    ratio: float
    middle_half: tuple[float, float]
    # The quickest quarter: below it is a quarter of the measurements.
    quick: float
    quick_ratio: float
    # Microseconds by process.
    processes: Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """One run of the bench."""

    # As it was called.
    command: str
    # Seconds of one measurement.
    seconds: int
    scenarios: Sequence[Scenario]
    # The order read at a share of what can be served.
    steady: Steady
    # The read's SQL by pgbench, transactions a second.
    pgbench: float
    # By wrk, where it is installed.
    peak: HotRead | None
    # Microseconds of CPU of a cached read, by Valkey client.
    valkey_clients: Mapping[str, float]
    # A Markdown table.
    profile: str
    # Reads done, and resident memory of the Envoy processes after them in MiB.
    memory: Sequence[tuple[int, float]]
    layer: Layer
    topologies: Mapping[str, HotRead]
    # By how much is traced.
    tracing: Mapping[str, TracingCost]
