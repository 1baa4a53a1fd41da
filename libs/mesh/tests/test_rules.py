"""The rules as Prometheus evaluates them, in unit tests of its own: real windows, made-up samples. And what they are made of."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from contracts.bff.v1.operations import OPERATIONS
from mesh.observability.alerts import ALERTS, Firing, page
from mesh.observability.conditions import Found, Series
from mesh.observability.objectives import OBJECTIVES
from mesh.observability.rules import rules
from mesh.statistics import BUCKETS
from mesh.topology import TABLE
from programs import PROMTOOL

ROOT = Path(__file__).resolve().parents[3]
ALERT = {alert.name: alert for alert in ALERTS}


def steady(value: float) -> str:
    return f"{value:.10g}+0x20"


def growing(*parts: tuple[float, float], every: float = 1) -> str:
    """A counter: for so many minutes by so much a minute; one sample every so many minutes."""
    said, value = [], 0.0
    for minutes, step in parts:
        said.append(f"{value:.10g}+{step * every:.10g}x{int(minutes / every) - 1}")
        value += step * minutes
    return " ".join(said)


def answers(good: str, bad: str) -> dict[str, str]:
    name = (
        'envoy_vhost_route_upstream_rq_xx{service="edge",instance="edge",envoy_route="read",envoy_response_code_class='
    )
    return {f'{name}"2"}}': good, f'{name}"5"}}': bad}


def times(quick: str, every: str, le: str = "250") -> dict[str, str]:
    name, labels = "envoy_vhost_route_upstream_rq_time", 'service="edge",instance="edge",envoy_route="read"'
    return {f'{name}_bucket{{{labels},le="{le}"}}': quick, f"{name}_count{{{labels}}}": every}


def of_order(metric: str, values: str, **labels: str) -> dict[str, str]:
    said = "".join(f',{name}="{value}"' for name, value in labels.items())
    return {f'{metric}{{service="order",instance="order"{said}}}': values}


@dataclass(frozen=True)
class Case:
    """What is so, and at which minutes which alert fires then."""

    name: str
    alert: str
    series: dict[str, str]
    fires: Sequence[int] = ()
    is_silent: Sequence[int] = ()
    labels: tuple[tuple[str, str], ...] = (("service", "order"), ("instance", "order"))
    # Minutes between two samples.
    every: int = 1


READ = (("class", "read"),)
CASES = (
    Case(
        "two of a hundred fail: in an hour the month has lost 2 % and more",
        "AvailabilityBudgetBurns",
        answers(growing((150, 1000), (60, 980), (30, 1000)), growing((150, 0), (60, 20), (30, 0))),
        fires=[150 + 50],
        # Not yet, and five minutes after it is over.
        is_silent=[150, 150 + 30, 150 + 67],
        labels=READ,
    ),
    Case(
        "one of a hundred fails, for hours",
        "AvailabilityBudgetBurns",
        answers(growing((120, 1000), (210, 990), (60, 1000)), growing((120, 0), (210, 10), (60, 0))),
        fires=[120 + 200],
        # Not yet, and half an hour after it is over.
        is_silent=[120 + 120, 330 + 35],
        labels=READ,
    ),
    Case(
        "of nine requests of an hour all fail",
        "AvailabilityBudgetBurns",
        answers(growing((120, 0)), growing((60, 0), (9, 1), (51, 0))),
        is_silent=[65, 70, 75],
        labels=READ,
    ),
    Case(
        "two of a thousand fail, for days",
        "AvailabilityBudgetShrinks",
        answers(growing((4320, 998), every=10), growing((4320, 2), every=10)),
        fires=[4300],
        labels=READ,
        every=10,
    ),
    Case(
        "what pages is no ticket besides",
        "AvailabilityBudgetShrinks",
        answers(growing((4320, 900), every=10), growing((4320, 100), every=10)),
        is_silent=[4300],
        labels=READ,
        every=10,
    ),
    Case(
        "a fifth is slow",
        "LatencyBudgetBurns",
        times(growing((60, 1000), (60, 800)), growing((120, 1000))),
        fires=[115],
        is_silent=[60, 65],
        labels=READ,
    ),
    Case(
        "a fifth is slow, told by Prometheus 3",
        "LatencyBudgetBurns",
        times(growing((30, 800)), growing((30, 1000)), le="250.0"),
        fires=[20],
        labels=READ,
    ),
    Case(
        "two of a hundred are slow, for days",
        "LatencyBudgetShrinks",
        times(growing((4320, 980), every=10), growing((4320, 1000), every=10)),
        fires=[4300],
        labels=READ,
        every=10,
    ),
    Case("it answers again", "ProcessDown", of_order("up", "1+0x9 0+0x9 1+0x9"), fires=[15], is_silent=[11, 25]),
    Case(
        "nobody knows of a limiter",
        "ServiceMissing",
        {
            f'up{{service="{name}",instance="{name}"}}': steady(1)
            for name in ("user", "order", "notification", "bff", "edge")
        },
        fires=[6],
        is_silent=[4],
        labels=(("service", "limiter"),),
    ),
    Case(
        "for a while",
        "CheckFails",
        of_order("backend_degraded", "0+0x9 1+0x9 0+0x9", check="valkey-cache"),
        fires=[15],
        is_silent=[11, 25],
        labels=(("service", "order"), ("instance", "order"), ("check", "valkey-cache")),
    ),
    Case(
        "started again once; then no more",
        "WorkerNotRunning",
        of_order("backend_worker_running", "1+0x4 0 1+0x9 0+0x9", worker="sweep"),
        fires=[20],
        is_silent=[5, 6, 10],
        labels=(("service", "order"), ("instance", "order"), ("worker", "sweep")),
    ),
    Case(
        "all have one; then more want one",
        "PoolExhausted",
        {
            **of_order("backend_database_connections_max", steady(10)),
            # Seconds a minute.
            **of_order(
                "backend_database_use_duration_seconds_sum", growing((10, 600), (10, 720)), statement="transaction"
            ),
        },
        fires=[16],
        is_silent=[9],
    ),
    Case(
        "requests that nobody counts",
        "LimiterFailsOpen",
        of_order("envoy_cluster_ratelimit_failure_mode_allowed", growing((10, 0), (10, 60))),
        fires=[15],
        is_silent=[9],
    ),
    Case(
        "connections that nobody counts",
        "LimiterFailsOpen",
        of_order("envoy_ratelimit_failure_mode_allowed", growing((10, 0), (10, 60))),
        fires=[15],
        is_silent=[9],
    ),
    Case(
        "five hours from the beginning, unless it is renewed",
        "CertificateExpires",
        of_order("envoy_listener_ssl_certificate_expiration_unix_time_seconds", "18000+0x89 100000+0x30"),
        fires=[65],
        is_silent=[55, 95],
    ),
    Case(
        "a broker that is down, tried every 15 s",
        "EventsWait",
        of_order("backend_outbox_failures_total", growing((10, 0), (10, 4), (10, 0)), reason="unavailable"),
        fires=[15],
        is_silent=[9, 27],
    ),
    Case(
        "events that nobody tries to publish",
        "EventsWait",
        of_order("backend_outbox_age_seconds", growing((10, 0), (10, 60))),
        fires=[15],
        is_silent=[9],
    ),
    Case(
        "a consumer that does not keep up",
        "EventsLag",
        of_order("backend_consumer_lag", "20+0x9 400+0x9 20+0x9"),
        fires=[15],
        is_silent=[9, 27],
    ),
    Case(
        "two events that fail, each tried every minute",
        "EventsFail",
        of_order("backend_event_failures_total", growing((10, 0), (10, 2), (10, 0)), then="retry"),
        fires=[15],
        is_silent=[9, 27],
    ),
    Case(
        "events that are given again and again",
        "EventsFail",
        of_order("backend_event_redeliveries_total", growing((10, 0), (10, 100), (10, 0))),
        fires=[16],
        is_silent=[9, 27],
    ),
    Case(
        "all that a process had in hand is given again once",
        "EventsFail",
        of_order("backend_event_redeliveries_total", growing((10, 0), (1, 256), (20, 0))),
        is_silent=[11, 12, 15],
    ),
    Case(
        "one event that was given up, until it is replayed or dropped",
        "DeadLetters",
        of_order("backend_dead_letters", "0+0x9 1+0x9 0+0x9"),
        fires=[11, 15],
        is_silent=[9, 27],
    ),
    Case(
        "a mail server that is away, tried every half a minute",
        "MailsWait",
        of_order("backend_mail_failures_total", growing((10, 0), (10, 2), (10, 0)), reason="unavailable"),
        fires=[15],
        is_silent=[9, 27],
    ),
    Case(
        "a mail that was given up",
        "MailsWait",
        of_order("backend_mails_total", growing((10, 0), (1, 1), (20, 0)), outcome="given_up"),
        fires=[12],
        is_silent=[9, 20],
    ),
    Case(
        "no room for lines",
        "LogLinesLost",
        of_order("backend_log_lines_lost_total", growing((10, 0), (5, 3), (15, 0))),
        fires=[12],
        is_silent=[9, 25],
    ),
    Case(
        "a receiver that is away",
        "SpansLost",
        {
            **of_order("backend_spans_total", growing((10, 100), (10, 90)), outcome="sent"),
            **of_order("backend_spans_total", growing((10, 0), (10, 10)), outcome="failed"),
        },
        fires=[15],
        is_silent=[9],
    ),
)


def _expected(case: Case, minute: int, *, fires: bool) -> dict[str, object]:
    expected = []
    if fires:
        alert = ALERT[case.alert]
        expected = [
            {
                "exp_labels": {**dict(case.labels), "severity": alert.severity},
                "exp_annotations": {"summary": Firing(alert, dict(case.labels), 0).summary, "runbook": page(alert)},
            }
        ]
    return {"eval_time": f"{minute}m", "alertname": case.alert, "exp_alerts": expected}


@pytest.mark.promtool
@pytest.mark.parametrize("every", sorted({case.every for case in CASES}))
def test_prometheus_fires_when_it_should(tmp_path: Path, every: int) -> None:
    # Of the classes, one is as good as all, and takes a fifth of the time. One group: promtool takes several in any order.
    all_of_them = [rule for group in yaml.safe_load(rules())["groups"] for rule in group["rules"]]
    group = {"name": "all", "rules": [rule for rule in all_of_them if rule["labels"].get("class", "read") == "read"]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [group]}), encoding="utf-8")
    tests = [
        {
            "name": case.name,
            "interval": f"{every}m",
            "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
            "alert_rule_test": [
                *(_expected(case, minute, fires=True) for minute in case.fires),
                *(_expected(case, minute, fires=False) for minute in case.is_silent),
            ],
        }
        for case in CASES
        if case.every == every
    ]
    file = {"rule_files": ["rules.yml"], "evaluation_interval": f"{every}m", "tests": tests}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(file), encoding="utf-8")
    assert PROMTOOL is not None
    command = [PROMTOOL, "test", "rules", "tests.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.promtool
def test_prometheus_takes_what_is_rendered() -> None:
    assert PROMTOOL is not None
    for command in (["rules", "--lint=all", "--lint-fatal", "rules.yml"], ["config", "prometheus.yml"]):
        done = subprocess.run(
            [PROMTOOL, "check", *command],
            cwd=ROOT / "deploy/observability",
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    assert {case.alert for case in CASES if case.fires} == ALERT.keys()


def test_every_class_of_operation_is_promised_something_that_is_measured() -> None:
    classes = {operation.operation_class for operation in OPERATIONS}
    assert {objective.operation_class for objective in OBJECTIVES} == classes
    assert {objective.seconds * 1000 for objective in OBJECTIVES} <= set(BUCKETS)


def test_the_document_says_what_is_promised() -> None:
    text = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    for objective in OBJECTIVES:
        available, quick = (f"{100 * share:.4g} %" for share in (objective.available, objective.quick))
        row = f"| {objective.operation_class} | {available} | {quick} | {objective.seconds:g} s |"
        assert row in text, row


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_has_a_page_that_says_what_to_do(alert: object) -> None:
    assert isinstance(alert, type(ALERTS[0]))
    text = (ROOT / page(alert)).read_text(encoding="utf-8")
    for needed in (f"`{alert.name}`", "**Look", "**Do", "**It is over** when"):
        assert needed in text, needed


class _History:
    def __init__(self, *series: tuple[str, Series]) -> None:
        self._all = series

    def series(self, metric: str, seconds: float) -> list[Series]:
        return [series for name, series in self._all if name == metric]


def found(alert: str, *series: tuple[str, Series], now: float = 600) -> Found:
    return ALERT[alert].found(_History(*series), now)


def test_without_a_prometheus_the_same_alerts_fire() -> None:
    """The whole agreement is in tests/chaos/test_alerts.py; here is what a restart and a missing share do."""
    order = {"service": "order", "instance": "order"}
    restarted = Series(order, [(0, 900.0), (60, 0.0), (120, 0.0)])
    assert found("LogLinesLost", ("backend_log_lines_lost_total", restarted)) == {}
    lost = Series(order, [(0, 900.0), (60, 3.0), (120, 3.0)])
    assert found("LogLinesLost", ("backend_log_lines_lost_total", lost)) == {
        (("instance", "order"), ("service", "order")): 3 / 120
    }
    nothing_sent = Series({**order, "outcome": "failed"}, [(0, 0.0), (60, 0.0)])
    assert found("SpansLost", ("backend_spans_total", nothing_sent)) == {}
    assert len(found("ServiceMissing", ("up", Series(order, [(0, 1.0)])))) == len(TABLE) - 1
