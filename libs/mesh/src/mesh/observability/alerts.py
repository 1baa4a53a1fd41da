"""Every alert, as data: `rules` makes Prometheus's of it, and `firing` says which there are where no Prometheus is.

An alert of a budget says that clients are not served as promised, whatever the cause; one of a cause says what is wrong, or
what soon will be. Both have a page of docs/runbooks. A new one is a line here, a page there, and a fault in
tests/chaos/test_alerts.py that makes it fire.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mesh.observability.conditions import Bound, Condition, Found, History, Labels, Missing, Of, Soon, Total
from mesh.observability.objectives import FAST, SLOW, Burning
from mesh.topology import TABLE

_MINUTE, _HOUR = 60.0, 3600.0
_LATELY = 5 * _MINUTE
_PROCESS = ("service", "instance")
_POOL = {"statement": "connection|transaction"}


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that somebody has to do something about.

    Args:
        name: of the alert.
        severity: "page" for now, whatever the hour; "ticket" for the next working day.
        summary: one line; `{label}` stands for the label's value.
        runbook: a page of docs/runbooks, without its ending.
        any_of: it fires for each that one of these is so for.
        unless: this one fires for it already.
        lasts: seconds for which it has to be so, where a condition looks at this moment alone; for Prometheus only.
    """

    name: str
    severity: Literal["page", "ticket"]
    summary: str
    runbook: str
    any_of: tuple[Condition, ...]
    unless: Alert | None = None
    lasts: float = 0.0

    def promql(self, factor: float = 1) -> str:
        """What Prometheus evaluates."""
        expression = "\nor ".join(condition.promql(factor) for condition in self.any_of)
        if self.unless is None:
            return expression
        return f"(\n{expression}\n)\nunless (\n{self.unless.promql(factor)}\n)"

    def found(self, history: History, now: float, factor: float = 1) -> Found:
        """Whom it fires for, by labels, and what was measured."""
        found: Found = {}
        for condition in self.any_of:
            for by, value in condition.found(history, now, factor).items():
                found.setdefault(by, value)
        known = {} if self.unless is None else self.unless.found(history, now, factor)
        return {by: value for by, value in found.items() if by not in known}


@dataclass(frozen=True, slots=True)
class Firing:
    """An alert that fires now, for one of those that it may fire for."""

    alert: Alert
    labels: Labels
    # What was measured: a share, a rate a second, or seconds.
    value: float

    @property
    def summary(self) -> str:
        """The alert's, about this one."""
        return re.sub(r"\{(\w+)\}", lambda label: self.labels.get(label[1], "?"), self.alert.summary)

    @property
    def runbook(self) -> str:
        """Its page, from the root of the repository."""
        return page(self.alert)


def page(alert: Alert) -> str:
    """An alert's runbook, from the root of the repository."""
    return f"docs/runbooks/{alert.runbook}.md"


def firing(history: History, now: float, alerts: Sequence[Alert] | None = None, factor: float = 1) -> Iterable[Firing]:
    """The alerts that fire, by what the processes have told.

    Args:
        history: as far as an alert looks back, or what there is.
        now: Unix seconds.
        alerts: which to look at; all of them when none are given.
        factor: see `mesh.observability.conditions`.
    """
    for alert in ALERTS if alerts is None else alerts:
        for by, value in alert.found(history, now, factor).items():
            yield Firing(alert, dict(by), value)


_FAILING = Alert(
    "AvailabilityBudgetBurns",
    "page",
    "Requests of class {class} fail so often that the month's budget will be gone in days",
    "budget-burns",
    (Burning("failed", FAST),),
)
_SLOW = Alert(
    "LatencyBudgetBurns",
    "page",
    "Requests of class {class} are slow so often that the month's budget will be gone in days",
    "budget-burns",
    (Burning("slow", FAST),),
)
BUDGETS = (
    _FAILING,
    _SLOW,
    Alert(
        "AvailabilityBudgetShrinks",
        "ticket",
        "Requests of class {class} fail somewhat too often: the budget will not last the month",
        "budget-burns",
        (Burning("failed", SLOW),),
        unless=_FAILING,
    ),
    Alert(
        "LatencyBudgetShrinks",
        "ticket",
        "Requests of class {class} are slow somewhat too often: the budget will not last the month",
        "budget-burns",
        (Burning("slow", SLOW),),
        unless=_SLOW,
    ),
)

CAUSES = (
    Alert(
        "ProcessDown",
        "page",
        "{instance} does not tell its metrics: it is dead, hangs, or cannot be reached",
        "process-down",
        (Bound(Total("mean", Of("up"), _PROCESS), "<", 0.5, _LATELY),),
    ),
    Alert(
        "ServiceMissing",
        "page",
        "No process of {service} is known to whoever watches",
        "process-down",
        tuple(Missing(Of("up", {"service": row.name})) for row in TABLE),
        # While Prometheus starts, it knows of nobody.
        lasts=_LATELY,
    ),
    Alert(
        "CheckFails",
        "ticket",
        "{instance} works without {check}, or not at all",
        "check-fails",
        (Bound(Total("mean", Of("backend_degraded"), (*_PROCESS, "check")), ">", 0.5, _LATELY),),
    ),
    Alert(
        "WorkerNotRunning",
        "ticket",
        "{instance}: the worker {worker} ends again and again",
        "worker-not-running",
        (Bound(Total("mean", Of("backend_worker_running"), (*_PROCESS, "worker")), "<", 0.5, _LATELY),),
    ),
    Alert(
        "PoolExhausted",
        "page",
        "{instance}: more calls want a connection to PostgreSQL than there are",
        "pool-exhausted",
        (
            # By Little's law the seconds spent a second, waiting included, are how many there were on average. Their number when
            # somebody looks says less: the look waits for a connection as well.
            Bound(
                Total("rate", Of("backend_database_use_duration_seconds_sum", _POOL), _PROCESS),
                ">",
                1,
                _LATELY,
                share_of=Total("mean", Of("backend_database_connections_max"), _PROCESS),
            ),
        ),
    ),
    Alert(
        "LimiterFailsOpen",
        "page",
        "{instance} lets pass what the limiter does not decide: only each edge's own limits hold",
        "limiter-fails-open",
        tuple(
            Bound(Total("rate", Of(metric), _PROCESS), ">", 0.02, _LATELY)
            for metric in ("envoy_cluster_ratelimit_failure_mode_allowed", "envoy_ratelimit_failure_mode_allowed")
        ),
    ),
    Alert(
        "CertificateExpires",
        "page",
        "{instance}: a certificate has not been renewed and is valid for less than four hours",
        "certificate-expires",
        tuple(
            Soon(Of(f"envoy_{of}_ssl_certificate_expiration_unix_time_seconds"), 4 * _HOUR, _PROCESS)
            for of in ("listener", "cluster")
        ),
    ),
    Alert(
        "LogLinesLost",
        "ticket",
        "{instance} cannot write its log: the disk is full, or nobody reads the pipe",
        "disk-full",
        (Bound(Total("rate", Of("backend_log_lines_lost_total"), _PROCESS), ">", 0, _LATELY),),
    ),
    Alert(
        "SpansLost",
        "ticket",
        "{instance} cannot send its spans: requests cannot be followed",
        "spans-lost",
        (
            Bound(
                Total("rate", Of("backend_spans_total", {"outcome": "dropped|failed"}), _PROCESS),
                ">",
                0.01,
                _LATELY,
                share_of=Total("rate", Of("backend_spans_total"), _PROCESS),
            ),
        ),
    ),
    Alert(
        "EventsWait",
        "page",
        "{instance}: events stay in the outbox: the broker is down, or does not take them",
        "events-wait",
        (
            Bound(Total("rate", Of("backend_outbox_failures_total"), _PROCESS), ">", 0.02, _LATELY),
            # Longer than any pause between two tries.
            Bound(Total("mean", Of("backend_outbox_age_seconds"), _PROCESS), ">", 60, _LATELY),
        ),
    ),
    Alert(
        "EventsLag",
        "ticket",
        "{instance} does not keep up with the events that it acts on",
        "events-lag",
        # What is in hand is counted as well: some dozens when all is well.
        (Bound(Total("mean", Of("backend_consumer_lag"), _PROCESS), ">", 100, _LATELY),),
    ),
    Alert(
        "EventsFail",
        "ticket",
        "{instance}: what it does about events fails, and is tried again",
        "events-fail",
        (
            Bound(
                Total("rate", Of("backend_event_failures_total", {"then": "retry|wait"}), _PROCESS), ">", 0.02, _LATELY
            ),
            # More than everything that a process may have in hand, which is given again once when it ends.
            Bound(Total("rate", Of("backend_event_redeliveries_total"), _PROCESS), ">", 1, _LATELY),
        ),
    ),
    Alert(
        "DeadLetters",
        "ticket",
        "{instance} has given up events: they wait for somebody to see to them",
        "dead-letters",
        (Bound(Total("mean", Of("backend_dead_letters"), _PROCESS), ">", 0, _LATELY),),
    ),
    Alert(
        "MailsWait",
        "ticket",
        "{instance}: mails are not sent: a server cannot be reached or takes none, or some were given up",
        "mails-wait",
        (
            Bound(
                Total("rate", Of("backend_mail_failures_total", {"reason": "unavailable"}), _PROCESS),
                ">",
                0.02,
                _LATELY,
            ),
            Bound(Total("rate", Of("backend_mails_total", {"outcome": "given_up"}), _PROCESS), ">", 0, _LATELY),
        ),
    ),
)
ALERTS = (*BUDGETS, *CAUSES)
# How far back an alert of a cause looks, and how far any.
CAUSES_LOOK_BACK_SECONDS = _LATELY
LONGEST_SECONDS = max(burn.long for burn in (*FAST, *SLOW))
