"""What the processes of a stack did in the last quarter of an hour: counts and latencies of each kind of work, by time.

Counters only grow, so what happened between two rounds is their difference; one that is smaller than before was begun anew
by a process that was started again. Differences of all replicas are added up and kept in slots of at least five seconds,
180 of them, with nothing in them for what did not happen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from chassis.metrics.families import LATENCY_BUCKETS

from devstack.console.rounds import Round

SLOT_SECONDS = 5.0
KEPT_SECONDS = 900.0
MOST_SLOTS = int(KEPT_SECONDS / SLOT_SECONDS)
# What one slot has at most, of whatever names processes tell.
_MOST_WORKS = 2_000

# Whose work: a kind ("http", "rpc", "link", …) and a name.
Key = tuple[str, str]


@dataclass(slots=True)
class Work:
    """How often something was done within some time.

    Attributes:
        count: in all.
        refused: of these, by a mistake or a limit of who asked.
        failed: of these, by our fault.
        buckets: by the upper bound of a bucket in seconds, how many took no longer.
    """

    count: float = 0
    refused: float = 0
    failed: float = 0
    buckets: dict[float, float] = field(default_factory=dict)

    def add(self, other: Work) -> None:
        """That as well."""
        self.count += other.count
        self.refused += other.refused
        self.failed += other.failed
        for bound, count in other.buckets.items():
            self.buckets[bound] = self.buckets.get(bound, 0) + count

    def quantile(self, share: float) -> float | None:
        """How long so large a share took at most, in seconds; within a bucket as if evenly spread. None without any."""
        wanted = share * max(self.buckets.values(), default=0.0)
        if wanted <= 0:
            return None
        below, last = 0.0, 0.0
        for bound in LATENCY_BUCKETS:
            # A bucket that nothing was added to is not here.
            count = self.buckets.get(bound, below)
            if count >= wanted:
                return last + (bound - last) * (wanted - below) / (count - below)
            below, last = count, bound
        # All that is known is that it was longer.
        return last


@dataclass(frozen=True, slots=True)
class Part:
    """How the difference of a series counts: as this many of what."""

    key: Key
    refused: bool = False
    failed: bool = False
    # A bucket of a histogram, by its bound; then it counts nothing else.
    bucket: float | None = None


# What a series of a process stands for; nothing when it is no count.
Meaning = Callable[[str, str], Iterable[Part]]


@dataclass(frozen=True, slots=True)
class Slot:
    """What was done between two moments (Unix seconds)."""

    begin: float
    end: float
    works: Mapping[Key, Work]


class History:
    """The slots.

    Args:
        meaning: what a series (its name with labels) of a process counts.
    """

    def __init__(self, meaning: Meaning) -> None:
        self._meaning = meaning
        self._closed: deque[Slot] = deque(maxlen=MOST_SLOTS)
        self._current: Slot | None = None
        # When the current slot began, and what had been counted then.
        self._began = 0.0
        self._base: dict[str, Mapping[str, float]] = {}
        self._newest: dict[str, Mapping[str, float]] = {}

    def add(self, found: Round) -> None:
        """Take what a round has found."""
        if self._current is not None and self._current.end - self._began >= SLOT_SECONDS:
            self._closed.append(self._current)
            self._began, self._current = self._current.end, None
            self._base = dict(self._newest)
        for process, numbers in found.numbers.items():
            # What was counted before anybody asked has no time.
            self._base.setdefault(process, numbers)
            self._newest[process] = numbers
        known = {process.name for process in found.stack.processes} if found.stack is not None else set()
        for gone in self._newest.keys() - known:
            del self._newest[gone], self._base[gone]
        if not self._began:
            self._began = found.at
        elif found.at > self._began:
            self._current = Slot(self._began, found.at, self._works())

    def slots(self, since: float) -> list[Slot]:
        """Those that end later than that, the oldest first."""
        all_of_them = [*self._closed, *([self._current] if self._current else [])]
        return [slot for slot in all_of_them if slot.end > since]

    def _works(self) -> dict[Key, Work]:
        works: dict[Key, Work] = {}
        for part, amount in self._differences():
            work = works.get(part.key)
            if work is None:
                if len(works) >= _MOST_WORKS:
                    continue
                work = works[part.key] = Work()
            if part.bucket is not None:
                work.buckets[part.bucket] = work.buckets.get(part.bucket, 0) + amount
                continue
            work.count += amount
            work.refused += amount * part.refused
            work.failed += amount * part.failed
        return works

    def _differences(self) -> Iterator[tuple[Part, float]]:
        for process, numbers in self._newest.items():
            base = self._base[process]
            for series, value in numbers.items():
                before = base.get(series, 0.0)
                if value != before:
                    amount = value - before if value > before else value
                    for part in self._meaning(process, series):
                        yield part, amount


def total(slots: Iterable[Slot]) -> dict[Key, Work]:
    """All that was done in these."""
    found: dict[Key, Work] = {}
    for slot in slots:
        for key, work in slot.works.items():
            found.setdefault(key, Work()).add(work)
    return found


def seconds(slots: list[Slot]) -> float:
    """How much time these are."""
    return slots[-1].end - slots[0].begin if slots else 0.0
