"""What must be so for an alert, as data: PromQL for Prometheus, and the same answer from samples where there is none.

A window is seconds. A factor shortens all of them alike, so that a test sees in a minute what takes an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import ge, gt, lt
from re import fullmatch
from typing import Literal, Protocol

Labels = Mapping[str, str]
Points = Sequence[tuple[float, float]]
# By the labels that tell one from another, sorted by name: what was measured.
Found = dict[tuple[tuple[str, str], ...], float]

COMPARED = {">": gt, ">=": ge, "<": lt}
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


@dataclass(frozen=True, slots=True)
class Series:
    """Samples of one series: (Unix seconds, value), oldest first. Its labels have `service` and `instance`."""

    labels: Labels
    points: Points


class History(Protocol):
    """What the processes have told lately. `up` is a metric, too: 1 for each process that could be asked, else 0."""

    def series(self, metric: str, seconds: float) -> Iterable[Series]:
        """All series of a metric, each with its samples of the last `seconds`; for 0, with the newest alone."""
        ...


class Condition(Protocol):
    """Something that is so, or is not, for each of some labels."""

    def promql(self, factor: float = 1) -> str:
        """An expression that has a sample for each that it is so for."""
        ...

    def found(self, history: History, now: float, factor: float = 1) -> Found:
        """The same: whom it is so for, and what was measured. The history's newest samples are of `now`, Unix seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Of:
    """Some series of a metric: those whose labels have these values, each a regular expression of the whole."""

    metric: str
    where: Labels = field(default_factory=dict)

    def promql(self) -> str:
        """A selector."""
        said = ",".join(f"{name}{_matches(value)}" for name, value in self.where.items())
        return f"{self.metric}{{{said}}}" if said else self.metric

    def series(self, history: History, seconds: float) -> Iterable[Series]:
        """These series."""
        for found in history.series(self.metric, seconds):
            if all(fullmatch(value, found.labels.get(name, "")) for name, value in self.where.items()):
                yield found


@dataclass(frozen=True, slots=True)
class Total:
    """Something of some series over a window, added up over all that have the same labels `by`.

    `how`: the rate of a counter a second, by how much it has grown, or the mean of a gauge.
    """

    how: Literal["rate", "increase", "mean"]
    of: Of
    by: tuple[str, ...]

    def promql(self, seconds: float) -> str:
        """Of a window, as PromQL."""
        function = "avg_over_time" if self.how == "mean" else self.how
        by = f" by ({', '.join(self.by)}) " if self.by else ""
        return f"sum{by}({function}({self.of.promql()}[{duration(seconds)}]))"

    def values(self, history: History, seconds: float) -> Found:
        """The same of a history."""
        found: Found = {}
        for series in self.of.series(history, seconds):
            value = _MEASURES[self.how](series.points)
            if value is not None:
                key = _key(self.by, series.labels)
                found[key] = found.get(key, 0.0) + value
        return found


@dataclass(frozen=True, slots=True)
class Bound:
    """A total, or the share that it is of another one, is above or below a bound over a window of seconds."""

    total: Total
    comparison: Literal[">", ">=", "<"]
    bound: float
    seconds: float
    share_of: Total | None = None

    def promql(self, factor: float = 1) -> str:
        """See `Condition`."""
        value = self.total.promql(self.seconds / factor)
        if self.share_of is not None:
            value += f"\n/ {self.share_of.promql(self.seconds / factor)}"
        return f"{value} {self.comparison} {number(self.bound)}"

    def found(self, history: History, now: float, factor: float = 1) -> Found:
        """See `Condition`."""
        del now
        values = self.total.values(history, self.seconds / factor)
        if self.share_of is not None:
            values = shares(values, self.share_of.values(history, self.seconds / factor))
        is_so = COMPARED[self.comparison]
        return {by: value for by, value in values.items() if is_so(value, self.bound)}


@dataclass(frozen=True, slots=True)
class Soon:
    """A moment, Unix seconds, is no further away than so many seconds."""

    moment: Of
    seconds: float
    by: tuple[str, ...]

    def promql(self, factor: float = 1) -> str:
        """See `Condition`."""
        earliest = f"min by ({', '.join(self.by)}) ({self.moment.promql()})"
        return f"{earliest} - time() < {number(self.seconds / factor)}"

    def found(self, history: History, now: float, factor: float = 1) -> Found:
        """See `Condition`."""
        found: Found = {}
        for series in self.moment.series(history, 0):
            by, left = _key(self.by, series.labels), series.points[-1][1] - now
            found[by] = min(left, found.get(by, left))
        return {by: left for by, left in found.items() if left < self.seconds / factor}


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no series like this one. Its labels, which are plain values, are those of the alert."""

    of: Of

    def promql(self, factor: float = 1) -> str:
        """See `Condition`."""
        del factor
        return f"absent({self.of.promql()})"

    def found(self, history: History, now: float, factor: float = 1) -> Found:
        """See `Condition`."""
        del now, factor
        return {} if any(self.of.series(history, 0)) else {tuple(sorted(self.of.where.items())): 1.0}


def shares(parts: Found, wholes: Found) -> Found:
    """What each part is of its whole; nothing of no whole."""
    return {by: part / wholes[by] for by, part in parts.items() if wholes.get(by)}


def duration(seconds: float) -> str:
    """As Prometheus writes it, in the largest unit that needs no fraction."""
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{max(1, round(seconds * 1000))}ms"


def number(value: float) -> str:
    """As PromQL writes it, without the last digits that binary fractions have."""
    return f"{value:.10g}"


def _matches(value: str) -> str:
    if fullmatch(r"[\w /:-]*", value):
        return f'="{value}"'
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'=~"{escaped}"'


def _key(by: Sequence[str], labels: Labels) -> tuple[tuple[str, str], ...]:
    return tuple((name, labels[name]) for name in sorted(by) if name in labels)


def _mean(points: Points) -> float | None:
    return sum(value for _, value in points) / len(points) if points else None


def _increase(points: Points) -> float | None:
    if len(points) < 2:
        return None
    # A counter that fell was started again, from nothing.
    return sum(later - earlier if later >= earlier else later for (_, earlier), (_, later) in pairwise(points))


def _rate(points: Points) -> float | None:
    increase = _increase(points)
    return None if increase is None else increase / (points[-1][0] - points[0][0])


_MEASURES: Mapping[str, Callable[[Points], float | None]] = {"mean": _mean, "increase": _increase, "rate": _rate}
