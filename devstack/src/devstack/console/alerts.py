"""Which alerts of causes are active: the rules are those that Prometheus has (`mesh.observability`), and no others.

They look back five minutes, which is what is kept here of the series that they name. Alerts of budgets look back hours and
days, and are Prometheus's alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mesh.observability.alerts import CAUSES, CAUSES_LOOK_BACK_SECONDS, firing
from mesh.observability.conditions import Series
from mesh.topology import service_of

from devstack.console import exposition
from devstack.console.rounds import Round

_UP = "up"
# As seldom as Prometheus asks: between two samples that are kept.
_SAMPLE_SECONDS = 10.0
_MOST_SAMPLES = int(CAUSES_LOOK_BACK_SECONDS / _SAMPLE_SECONDS) + 1
# Of less than this a mean says nothing.
_LEAST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Active:
    """What somebody should look at now.

    Attributes:
        name: of the alert.
        severity: "page" or "ticket".
        summary: what is wrong, and where.
        runbook: the page that says what to do, from the root of the repository.
        since: when that was first seen, Unix seconds.
    """

    name: str
    severity: str
    summary: str
    runbook: str
    since: float


class _Asked:
    """A history of nothing that remembers what it is asked for."""

    def __init__(self) -> None:
        self.metrics: set[str] = set()

    def series(self, metric: str, _seconds: float) -> Iterable[Series]:
        self.metrics.add(metric)
        return ()


def _named() -> frozenset[str]:
    asked = _Asked()
    list(firing(asked, 0.0, CAUSES))
    return frozenset(asked.metrics - {_UP})


# Every metric that a rule names.
NAMED = _named()


class Alerts:
    """What the processes told lately, as far as rules look back (`conditions.History`), and what follows."""

    def __init__(self) -> None:
        # By metric, then by process and series.
        self._samples: dict[str, dict[tuple[str, str], deque[tuple[float, float]]]] = {}
        self._began = 0.0
        self._now = 0.0
        self.active: list[Active] = []

    def evaluate(self, found: Round) -> None:
        """Take what a round has found, and look which alerts it makes active."""
        if found.stack is None or not found.stack.ready:
            return
        self._began, self._now = self._began or found.at, found.at
        for process in found.stack.processes:
            if f"{process.name}_ops" not in found.stack.endpoints:
                continue
            numbers = found.numbers.get(process.name)
            self._keep(_UP, process.name, _UP, float(numbers is not None))
            for series, value in (numbers or {}).items():
                if (name := exposition.name(series)) in NAMED:
                    self._keep(name, process.name, series, value)
        if self._now - self._began < _LEAST_SECONDS:
            return
        since = {(alert.name, alert.summary): alert.since for alert in self.active}
        self.active = [
            Active(
                fired.alert.name, fired.alert.severity, fired.summary, fired.runbook,
                since.get((fired.alert.name, fired.summary), found.at),
            )
            for fired in firing(self, found.at, CAUSES)
        ]  # fmt: skip

    def series(self, metric: str, seconds: float) -> Iterator[Series]:
        """See `conditions.History`."""
        for (process, series), samples in self._samples.get(metric, {}).items():
            recent = [sample for sample in samples if sample[0] >= self._now - seconds]
            if recent:
                labels: Mapping[str, str] = {"service": service_of(process), "instance": process}
                yield Series({**exposition.labels(series), **labels}, recent)

    def _keep(self, metric: str, process: str, series: str, value: float) -> None:
        of_metric = self._samples.setdefault(metric, {})
        samples = of_metric.get((process, series))
        if samples is None:
            samples = of_metric[process, series] = deque(maxlen=_MOST_SAMPLES)
        # The newest one is replaced until it is old enough to have another behind it.
        if len(samples) > 1 and self._now - samples[-2][0] < _SAMPLE_SECONDS:
            samples.pop()
        samples.append((self._now, value))
