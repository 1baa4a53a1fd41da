"""What the network layer costs: the hot order read with all policies beside the same without one of them, or without all."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles

from bench import Bench
from cpu import CpuWatch
from measured import HotRead, Layer, Share, mean_of
from mesh.policies import POLICIES

# Everything that a hot read touches. (The User service is left out: the login before each measurement is its work.)
_PROCESSES = ("edge", "bff", "order", "limiter", "valkey")
_PAIRS = 4
# Of one measurement: the two of a pair are so close that the machine is the same.
_SECONDS = 2


async def measure(whole: Bench, other: Bench) -> Layer:
    """Two stacks, one with all policies and one that is started again with each choice, measured by turns.

    A policy's share is taken in CPU time and not in rate, which differs more from one measurement to the next than
    most policies cost; and as the difference within a pair of neighbouring measurements, because the machine's own
    speed drifts by more than that within minutes.

    Args:
        whole: a stack that runs with all policies.
        other: one that does not run.
    """
    other.start()
    await other.prepare()
    pairs: dict[tuple[str, ...], list[tuple[_Costly, _Costly]]] = {}
    for policies in ((), POLICIES, *((policy,) for policy in POLICIES)):
        other.stop()
        other.start(*policies)
        await other.hot_read()
        pairs[policies] = [await _pair(whole, other, number % 2 == 0) for number in range(_PAIRS)]
        print(f"without {', '.join(policies) or 'nothing'}: {_difference(pairs[policies])}", flush=True)
    other.stop()
    bare = pairs[POLICIES]
    return Layer(
        whole=mean_of([pair[0][0] for pair in bare]),
        bare=mean_of([pair[1][0] for pair in bare]),
        cpu=median(pair[0][1] for pair in bare),
        nothing=_difference(pairs[()]),
        everything=_difference(bare),
        policies={policy: _difference(pairs[policy,]) for policy in POLICIES},
    )


_Costly = tuple[HotRead, float]


async def _pair(whole: Bench, other: Bench, whole_first: bool) -> tuple[_Costly, _Costly]:
    if whole_first:
        first = await _read(whole)
        return first, await _read(other)
    second = await _read(other)
    return await _read(whole), second


async def _read(bench: Bench) -> _Costly:
    """A hot read, and the microseconds of CPU that one request took."""
    watch = CpuWatch(bench.layout)
    measured = await bench.hot_read(seconds=_SECONDS)
    used = watch.seconds()
    return measured, sum(used[process] for process in _PROCESSES) / measured.requests * 1e6


def _difference(pairs: Sequence[tuple[_Costly, _Costly]]) -> Share:
    differences = [whole[1] - other[1] for whole, other in pairs]
    lower, _, upper = quantiles(differences, n=4)
    return Share(median(differences), (upper - lower) / 2)
