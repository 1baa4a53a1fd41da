"""Rate, errors and duration of every unit of work that `observe` sees: its count by outcome, and how long it took."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import time
from typing import Literal

from contracts.errors import ERRORS

from chassis import context
from chassis.metrics.families import OTHER, Durations, Exemplar, Family, Sample

Kind = Literal["http", "rpc", "call", "database", "valkey", "worker", "publish", "consume", "mail"]

# What a unit of work ends with, besides the reasons of the error table.
_OUTCOMES = frozenset({"OK", "CANCELLED", *ERRORS})
# Names of one kind: of operations, methods, statements and commands there are far fewer. It bounds the series also when
# somebody makes names out of what a client sends.
_MOST_NAMES = 512
# The last digit of a traceparent whose flags say "sampled" (W3C Trace Context, section 3.2.2.5.1).
_SAMPLED = frozenset("13579bdf")
_TRACEPARENT_LENGTH = 55


@dataclass(frozen=True, slots=True)
class _Named:
    """How a kind is told."""

    # Of its families, up to what they measure.
    prefix: str
    label: str
    what: str
    # Whether a trace shows what one of them did; its id is then an exemplar.
    has_trace: bool = False
    # One that runs as long as the process says nothing by its duration.
    ends: bool = True


_KINDS: dict[Kind, _Named] = {
    "http": _Named("backend_http_request", "operation", "Requests of clients", has_trace=True),
    "rpc": _Named("backend_rpc_request", "method", "Calls that this service answers", has_trace=True),
    "call": _Named("backend_call", "method", "Calls of other services, retries included", has_trace=True),
    "database": _Named("backend_database_use", "statement", "Statements, and uses of a connection or transaction"),
    "valkey": _Named("backend_valkey_command", "command", "Commands to Valkey"),
    "publish": _Named("backend_event_publication", "event", "Events given to the broker", has_trace=True),
    "consume": _Named("backend_event_attempt", "event", "Attempts to act on an event", has_trace=True),
    "mail": _Named("backend_mail_attempt", "kind", "Attempts to send a mail", has_trace=True),
    "worker": _Named("backend_worker_run", "worker", "Runs of workers that have ended", ends=False),
}


class Meter:
    """Counts one kind of work of one name."""

    __slots__ = ("_has_trace", "durations", "name", "outcomes")

    def __init__(self, name: str, *, has_trace: bool) -> None:
        self.name = name
        self._has_trace = has_trace
        self.outcomes = {"OK": 0}
        self.durations = Durations()

    def ended(self, outcome: str, seconds: float) -> None:
        """One has ended."""
        outcomes = self.outcomes
        if outcome in outcomes:
            outcomes[outcome] += 1
        else:
            known = outcome if outcome in _OUTCOMES else OTHER
            outcomes[known] = outcomes.get(known, 0) + 1
        bucket = self.durations.add(seconds)
        if self._has_trace:
            current = context.current()
            if current is not None and current.traceparent[-1:] in _SAMPLED:
                self._exemplify(bucket, seconds, current.traceparent)

    def _exemplify(self, bucket: int, seconds: float, traceparent: str) -> None:
        if len(traceparent) == _TRACEPARENT_LENGTH:
            self.durations.exemplars[bucket] = Exemplar(traceparent[3:35], seconds, time())


class _Counts(Family):
    """Of one kind, by name and outcome."""

    def __init__(self, named: _Named, meters: dict[str, Meter]) -> None:
        super().__init__(f"{named.prefix}s_total", f"{named.what}, by outcome", "counter", (named.label, "outcome"))
        self._meters = meters

    def samples(self) -> Iterator[Sample]:
        """See `Family`."""
        label, _ = self.labels
        for meter in self._meters.copy().values():
            for outcome, count in meter.outcomes.copy().items():
                yield Sample(((label, meter.name), ("outcome", outcome)), count)


class _Latencies(Family):
    """Of one kind, by name; of those that there have been."""

    def __init__(self, named: _Named, meters: dict[str, Meter]) -> None:
        super().__init__(
            f"{named.prefix}_duration_seconds", f"{named.what}: how long they took", "histogram", (named.label,)
        )
        self._meters = meters

    def samples(self) -> Iterator[Sample]:
        """See `Family`."""
        (label,) = self.labels
        for meter in self._meters.copy().values():
            if any(meter.durations.counts):
                yield from meter.durations.samples(((label, meter.name),))


_METERS: dict[Kind, dict[str, Meter]] = {kind: {} for kind in _KINDS}
for _kind, _named in _KINDS.items():
    _Counts(_named, _METERS[_kind])
    if _named.ends:
        _Latencies(_named, _METERS[_kind])


def meter(kind: Kind, name: str) -> Meter:
    """The meter of a unit of work, the same for the same name; no name, and one too many, are "other"."""
    meters = _METERS[kind]
    found = meters.get(name)
    if found is None:
        if not name or len(meters) >= _MOST_NAMES:
            name = OTHER
        found = meters.setdefault(name, Meter(name, has_trace=_KINDS[kind].has_trace))
    return found
