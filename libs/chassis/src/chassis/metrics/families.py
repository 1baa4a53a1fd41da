"""Counters, readings and histograms: a family each, made once as a constant of the module that counts.

    DECISIONS = Counter("backend_limiter_decisions_total", "Decisions, by what was decided", decision=("allowed", "refused"))
    ...
    DECISIONS.add("allowed")

How many series a family has is known beforehand, whatever clients send: each label's values are given when the family is
made, and any other is counted as "other". Counting is a lookup and an addition of plain numbers. It is done in the
thread of the event loop and nowhere else, and so without a lock; ADR 0033 has what that saves.

Names follow Prometheus: our prefix, base units, `_total` for what only grows.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

OTHER = "other"
# Seconds: from what a cache answers to what a client no longer waits for.
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Kind = Literal["counter", "gauge", "histogram"]
_NAME = re.compile(r"(backend|process|python)_[a-z][a-z_]*[a-z]")


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A request that is an example of those in its bucket: its trace, its seconds, and when it was (Unix seconds)."""

    trace_id: str
    value: float
    time: float


@dataclass(frozen=True, slots=True)
class Sample:
    """A number, as the exposition writes it: after the family's name comes the suffix."""

    labels: tuple[tuple[str, str], ...]
    value: float
    suffix: str = ""
    exemplar: Exemplar | None = None


class Family:
    """What the families have in common.

    Args:
        name: the whole, with prefix and unit.
        documentation: what it counts, in one line.
        kind: as Prometheus calls it.
        labels: their names.

    Raises:
        ValueError: the name is no name of ours, or says another kind.
    """

    def __init__(self, name: str, documentation: str, kind: Kind, labels: tuple[str, ...]) -> None:
        if not _NAME.fullmatch(name) or name.endswith("_total") != (kind == "counter"):
            raise ValueError(f"{name} is no name of a {kind}")
        self.name = name
        self.documentation = documentation
        self.kind = kind
        self.labels = labels
        FAMILIES[name] = self

    def samples(self) -> Iterator[Sample]:
        """Its numbers now."""
        raise NotImplementedError


# All of the process, by name.
FAMILIES: dict[str, Family] = {}


class Counter(Family):
    """Counts what happens.

    Args:
        name, documentation: see `Family`.
        labels: of each its values; every combination of them is there from the start.
    """

    def __init__(self, name: str, documentation: str, **labels: Iterable[str]) -> None:
        super().__init__(name, documentation, "counter", tuple(labels))
        # The values of each label.
        self.known = {label: frozenset(values) for label, values in labels.items()}
        self._counts = dict.fromkeys(product(*map(sorted, self.known.values())), 0)

    def add(self, *values: str, amount: int = 1) -> None:
        """Count `amount` more under these values of the labels, in their order."""
        if values not in self._counts:
            values = tuple(
                value if value in known else OTHER for value, known in zip(values, self.known.values(), strict=True)
            )
        self._counts[values] = self._counts.get(values, 0) + amount

    def count(self, *values: str) -> int:
        """How many were counted under these values."""
        return self._counts.get(values, 0)

    def samples(self) -> Iterator[Sample]:
        """See `Family`."""
        for values, count in self._counts.copy().items():
            yield Sample(tuple(zip(self.labels, values, strict=True)), count)


class Reading(Family):
    """What somebody knows already, and is asked for when it is to be told; a counter when its name ends in `_total`.

    Args:
        name, documentation: see `Family`.
        labels: their names; the values are given with what reads each.
    """

    def __init__(self, name: str, documentation: str, *labels: str) -> None:
        super().__init__(name, documentation, "counter" if name.endswith("_total") else "gauge", labels)
        self._reads: dict[tuple[str, ...], Callable[[], float]] = {}

    def read(self, what: Callable[[], float], *values: str) -> None:
        """From now on this is what is told under these values. It is called from the ops loop's thread."""
        if len(values) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {values}")
        self._reads[values] = what

    def tell(self, value: float, *values: str) -> None:
        """What was found just now is told under these values until something else is."""
        self.read(lambda: value, *values)

    def samples(self) -> Iterator[Sample]:
        """See `Family`."""
        for values, what in self._reads.copy().items():
            yield Sample(tuple(zip(self.labels, values, strict=True)), what())


class Durations:
    """How long each of some took, in buckets; without labels, one part of a histogram."""

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BUCKETS) -> None:
        self.bounds = bounds
        # Of each bucket by itself, and of what is above all of them.
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def add(self, seconds: float) -> int:
        """One more; which bucket it is in."""
        bucket = bisect_left(self.bounds, seconds)
        self.counts[bucket] += 1
        self.sum += seconds
        return bucket

    def samples(self, labels: tuple[tuple[str, str], ...]) -> Iterator[Sample]:
        """As a histogram has them: each bucket counts all that took no longer than its bound."""
        total = 0
        counts = self.counts.copy()
        for bucket, (bound, count) in enumerate(zip((*self.bounds, float("inf")), counts, strict=True)):
            total += count
            yield Sample((*labels, ("le", as_text(bound))), total, "_bucket", self.exemplars.get(bucket))
        yield Sample(labels, total, "_count")
        yield Sample(labels, self.sum, "_sum")


class Histogram(Family):
    """How long something takes, without labels."""

    def __init__(self, name: str, documentation: str, bounds: tuple[float, ...] = LATENCY_BUCKETS) -> None:
        super().__init__(name, documentation, "histogram", ())
        self._durations = Durations(bounds)

    def add(self, seconds: float) -> None:
        """One more."""
        self._durations.add(seconds)

    def samples(self) -> Iterator[Sample]:
        """See `Family`."""
        yield from self._durations.samples(())


def as_text(bound: float) -> str:
    """A bound of a bucket, in the canonical form of OpenMetrics 1.0 ("Numbers")."""
    return "+Inf" if bound == float("inf") else repr(float(bound))
