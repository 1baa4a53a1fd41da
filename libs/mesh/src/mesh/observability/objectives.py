"""What clients are promised, by class of operation, and how fast it may be used up before somebody is called.

Measured at the edge, by class of operation (`x-class` of the contract): every request that was meant for the API, whether a
service answered it or nobody was there to. What the edge refuses itself (limits, tokens) is no failure, and does not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mesh.observability.conditions import Found, History, Of, Total, duration, number, shares

# Every class of operation is a scope of its own in the edge's statistics (templates/edge.yaml.j2), which is this label of Envoy's. What
# is recorded, and alerts, have another.
ROUTE, CLASS = "envoy_route", "class"
_REQUESTS, _TIMES = "envoy_vhost_route_upstream_rq_xx", "envoy_vhost_route_upstream_rq_time"
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
# Fewer bad requests than this in the longer window are no trend, whatever their share: of few, one is much.
_LEAST = 10

Kind = Literal["failed", "slow"]


@dataclass(frozen=True, slots=True)
class Objective:
    """What is promised of the requests of one class, over 30 days."""

    operation_class: str
    # The share of requests that do not fail by our fault (an answer of 500 or more).
    available: float
    # The share of requests that take no longer than `seconds`, which is a bound of the histogram (mesh/statistics.py).
    quick: float
    seconds: float

    def budget(self, kind: Kind) -> float:
        """The share of requests that may be bad."""
        return 1 - (self.available if kind == "failed" else self.quick)

    def bad(self, kind: Kind) -> Bad:
        """The bad ones."""
        route = {ROUTE: self.operation_class}
        if kind == "failed":
            return Bad(Of(_REQUESTS, route), Of(_REQUESTS, {**route, "envoy_response_code_class": "5"}))
        # Prometheus 3 writes every bound with a fraction.
        bound = rf"{self.seconds * 1000:.0f}(\.0)?"
        return Bad(Of(f"{_TIMES}_count", route), Of(f"{_TIMES}_bucket", {**route, "le": bound}), are_good=True)


@dataclass(frozen=True, slots=True)
class Bad:
    """Bad requests among all. What is counted are they, or else the good ones."""

    requests: Of
    counted: Of
    are_good: bool = False

    def promql(self, how: Literal["rate", "increase"], seconds: float) -> str:
        """How many they are, over a window."""
        counted = _total(how, self.counted).promql(seconds)
        return f"({_total(how, self.requests).promql(seconds)}\n- {counted})" if self.are_good else counted

    def values(self, how: Literal["rate", "increase"], history: History, seconds: float) -> Found:
        """The same of a history."""
        counted = _total(how, self.counted).values(history, seconds)
        if not self.are_good:
            return counted
        everything = _total(how, self.requests).values(history, seconds)
        return {by: value - counted[by] for by, value in everything.items() if by in counted}


def _total(how: Literal["rate", "increase"], of: Of) -> Total:
    return Total(how, of, ())


@dataclass(frozen=True, slots=True)
class Burn:
    """A budget that is used up so many times too fast, over a long window and still over a short one."""

    rate: float
    long: float
    short: float


# https://sre.google/workbook/alerting-on-slos/, "Multiwindow, Multi-Burn-Rate Alerts": 2 % of a month's budget in an hour, 5 % in
# six hours; and 10 % in three days.
FAST = (Burn(14.4, _HOUR, 5 * _MINUTE), Burn(6, 6 * _HOUR, 30 * _MINUTE))
SLOW = (Burn(1, 3 * _DAY, 6 * _HOUR),)
_WINDOWS = sorted({window for burn in (*FAST, *SLOW) for window in (burn.long, burn.short)})

# A payment waits for a provider, and its failure is ours to its client. A login is as slow as its password's hash is to be.
OBJECTIVES = (
    Objective("read", available=0.999, quick=0.99, seconds=0.25),
    Objective("write", available=0.999, quick=0.99, seconds=0.5),
    Objective("login", available=0.999, quick=0.99, seconds=1.0),
    Objective("payment", available=0.995, quick=0.99, seconds=5.0),
    Objective("administration", available=0.995, quick=0.99, seconds=1.0),
)


@dataclass(frozen=True, slots=True)
class Burning:
    """The budget of some class burns at one of these rates."""

    kind: Kind
    burns: tuple[Burn, ...]

    def promql(self, factor: float = 1) -> str:
        """See `Condition`; what is recorded is called by the windows of factor 1."""
        del factor
        return "\nor ".join(
            f"({_burn_rate(self.kind, burn.long)} > {number(burn.rate)} and {_burn_rate(self.kind, burn.short)} > "
            f"{number(burn.rate)} and {_count(self.kind, burn.long)} >= {_LEAST})"
            for burn in self.burns
        )

    def found(self, history: History, now: float, factor: float = 1) -> Found:
        """See `Condition`: the burn rate over the long window."""
        del now
        found: Found = {}
        for burn in self.burns:
            for objective in OBJECTIVES:
                bad = objective.bad(self.kind)
                long, short = (self._rate(objective, history, w / factor) for w in (burn.long, burn.short))
                count = bad.values("increase", history, burn.long / factor).get((), 0)
                if min(long, short) > burn.rate and count >= _LEAST:
                    found.setdefault(((CLASS, objective.operation_class),), long)
        return found

    def _rate(self, objective: Objective, history: History, seconds: float) -> float:
        bad = objective.bad(self.kind)
        everything = _total("rate", bad.requests).values(history, seconds)
        return shares(bad.values("rate", history, seconds), everything).get((), 0) / objective.budget(self.kind)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recording rule: of which window (of factor 1) and class."""

    window: float
    operation_class: str
    name: str
    promql: str


def recorded(factor: float = 1) -> Iterable[Recorded]:
    """All recording rules."""
    longest = {burn.long for burn in (*FAST, *SLOW)}
    kinds: tuple[Kind, ...] = ("failed", "slow")
    for window in _WINDOWS:
        for kind in kinds:
            for objective in OBJECTIVES:
                bad = objective.bad(kind)
                whole = _total("rate", bad.requests).promql(window / factor)
                rate = f"{bad.promql('rate', window / factor)}\n/ {whole}\n/ {number(objective.budget(kind))}"
                yield Recorded(window, objective.operation_class, _burn_rate(kind, window), rate)
                if window in longest:
                    count = bad.promql("increase", window / factor)
                    yield Recorded(window, objective.operation_class, _count(kind, window), count)


def _burn_rate(kind: Kind, window: float) -> str:
    return f"class:{kind}:burn_rate{duration(window)}"


def _count(kind: Kind, window: float) -> str:
    return f"class:{kind}:increase{duration(window)}"
