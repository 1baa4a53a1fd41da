"""What is counted, that its series are bounded, and that the text is what Prometheus and OpenMetrics readers take."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from chassis.context import RequestContext, serving
from chassis.errors import ServiceError
from chassis.metrics.exposition import exposition, wants_open_metrics
from chassis.metrics.families import FAMILIES, Counter, Histogram, Reading
from chassis.metrics.work import _METERS, meter
from chassis.observe import Work, observe, served
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families as prometheus_families

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ENVOYS = """\
# TYPE envoy_cluster_upstream_cx_destroy counter
envoy_cluster_upstream_cx_destroy{envoy_cluster_name="order"} 3

# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="order"} 8

# TYPE envoy_cluster_upstream_rq_total counter
envoy_cluster_upstream_rq_total{envoy_cluster_name="order"} 8

# TYPE envoy_cluster_upstream_rq_time histogram
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="order",le="0.5"} 2
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="order",le="1"} 5
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="order",le="+Inf"} 8
envoy_cluster_upstream_rq_time_sum{envoy_cluster_name="order"} 12.3
envoy_cluster_upstream_rq_time_count{envoy_cluster_name="order"} 8

# TYPE envoy_server_uptime gauge
envoy_server_uptime{} 12
"""


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    """What a test counts and makes is gone after it."""
    every: list[dict[str, Any]] = [FAMILIES, *_METERS.values()]
    kept = [(known, known.copy()) for known in every]
    yield
    for known, before in kept:
        for name in known.keys() - before.keys():
            del known[name]


def told(envoys: str = "", *, open_metrics: bool = False) -> dict[str, Metric]:
    """By name, as a reader of the format understands it."""
    _, text = exposition(FAMILIES.values(), envoys, open_metrics=open_metrics)
    read = open_metrics_families if open_metrics else prometheus_families
    return {family.name: family for family in read(text)}


def value(family: Metric, name: str, **labels: str) -> float:
    return next(float(s.value) for s in family.samples if s.name == name and s.labels == labels)


def test_every_combination_of_labels_is_there_from_the_start_and_another_value_is_other() -> None:
    decisions = Counter("backend_test_decisions_total", "Decisions", domain=("a", "b"), decision=("yes", "no"))
    decisions.add("a", "yes")
    decisions.add("b", "no", amount=4)
    for _ in range(1000):
        decisions.add(random.randbytes(8).hex(), 'x"\n\\{} 1')
    family = told()["backend_test_decisions"]
    found = {(s.labels["domain"], s.labels["decision"]): s.value for s in family.samples}
    assert found == {("a", "yes"): 1, ("a", "no"): 0, ("b", "yes"): 0, ("b", "no"): 4, ("other", "other"): 1000}


def test_a_reading_is_asked_for_when_it_is_told() -> None:
    queue: list[int] = []
    Reading("backend_test_waiting", "Waiting", "queue").read(lambda: len(queue), 'a "queue"\\')
    queue.append(1)
    assert value(told()["backend_test_waiting"], "backend_test_waiting", queue='a "queue"\\') == 1


@pytest.mark.parametrize("name", ["test_things_total", "backend_Things_total", "backend_things"])
def test_a_name_says_whose_it_is_and_what_kind(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Counter(name, "Things")


def test_a_unit_of_work_is_counted_by_its_outcome_and_how_long_it_took() -> None:
    work = Work("http", "testThing", served)
    for error in (None, None, ServiceError("NOT_FOUND"), RuntimeError("any")):
        with suppress(ServiceError), observe(work, RequestContext("r" * 16)):
            if error:
                raise error
    found = told()
    requests, durations = found["backend_http_requests"], found["backend_http_request_duration_seconds"]
    name = "backend_http_requests_total"
    assert value(requests, name, operation="testThing", outcome="OK") == 2
    assert value(requests, name, operation="testThing", outcome="NOT_FOUND") == 1
    assert value(requests, name, operation="testThing", outcome="INTERNAL") == 1
    assert value(durations, "backend_http_request_duration_seconds_count", operation="testThing") == 4


def test_neither_names_nor_outcomes_that_nobody_knows_make_series_without_bound() -> None:
    before = sum(len(list(family.samples())) for family in FAMILIES.values())
    for _ in range(3000):
        meter("valkey", random.randbytes(8).hex()).ended(random.randbytes(8).hex(), random.random())
    first = sum(len(list(family.samples())) for family in FAMILIES.values())
    for _ in range(3000):
        meter("valkey", random.randbytes(8).hex()).ended(random.randbytes(8).hex(), random.random())
    assert sum(len(list(family.samples())) for family in FAMILIES.values()) == first
    assert first - before < 512 * 20


@pytest.mark.parametrize(
    ("traceparent", "examples"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", {TRACE}),
        (f"00-{TRACE}-00f067aa0ba902b7-03", {TRACE}),
        (f"00-{TRACE}-00f067aa0ba902b7-00", set()),
        ("", set()),
        ("1", set()),
    ],
)
def test_a_sampled_request_is_an_example_of_its_bucket(traceparent: str, examples: set[str]) -> None:
    work = Work("rpc", f"test.v1/{traceparent}", served)
    with observe(work, RequestContext("r" * 16, traceparent=traceparent)):
        pass
    family = told(open_metrics=True)["backend_rpc_request_duration_seconds"]
    mine = [s.exemplar for s in family.samples if s.labels["method"] == work.name and s.exemplar]
    assert {exemplar.labels["trace_id"] for exemplar in mine} == examples
    # The older format has none.
    assert not any(s.exemplar for s in told()["backend_rpc_request_duration_seconds"].samples)


def test_within_a_request_the_calls_that_it_makes_are_examples_too() -> None:
    with serving(RequestContext("r" * 16, traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")):
        with observe(Work("call", "test.v1/Called")):
            pass
        with observe(Work("valkey", "TEST")):
            pass
    found = told(open_metrics=True)
    assert any(s.exemplar for s in found["backend_call_duration_seconds"].samples)
    assert not any(s.exemplar for s in found["backend_valkey_command_duration_seconds"].samples)


def test_a_histogram_counts_each_in_all_buckets_that_it_fits() -> None:
    waits = Histogram("backend_test_wait_seconds", "Waits", (0.1, 1.0))
    for seconds in (0.1, 0.5, 7):
        waits.add(seconds)
    family = told(open_metrics=True)["backend_test_wait_seconds"]
    assert [(s.name, s.labels.get("le"), s.value) for s in family.samples] == [
        ("backend_test_wait_seconds_bucket", "0.1", 1),
        ("backend_test_wait_seconds_bucket", "1.0", 2),
        ("backend_test_wait_seconds_bucket", "+Inf", 3),
        ("backend_test_wait_seconds_count", None, 3),
        ("backend_test_wait_seconds_sum", None, 7.6),
    ]


@pytest.mark.parametrize("open_metrics", [False, True])
def test_envoys_are_in_the_same_text_under_the_same_names(*, open_metrics: bool) -> None:
    media_type, text = exposition(FAMILIES.values(), ENVOYS, open_metrics=open_metrics)
    assert media_type.startswith("application/openmetrics-text" if open_metrics else "text/plain")
    for line in ENVOYS.splitlines():
        if line and not line.startswith("#") and "le=" not in line:
            assert f"{line}\n" in text
    found = told(ENVOYS, open_metrics=open_metrics)
    assert {"backend_http_requests", "envoy_cluster_upstream_cx_destroy", "envoy_server_uptime"} <= found.keys()


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        # Of Prometheus 3.
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            True,
        ),
        ("text/plain, Application/OpenMetrics-Text", True),
        ("application/openmetrics-textual", False),
    ],
)
def test_openmetrics_is_for_whoever_accepts_it(accept: str, *, wanted: bool) -> None:
    assert wants_open_metrics(accept) is wanted
