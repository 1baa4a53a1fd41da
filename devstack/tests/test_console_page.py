"""What the console's page is told, to whom, and how little any one of them may take."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import pytest
from devstack.console import history, log_lines, server, spans, traces
from devstack.console.alerts import Alerts
from devstack.console.exposition import labels, numbers
from devstack.console.history import History, Part, Work, total
from devstack.console.log_lines import LogLines
from devstack.console.overview import course, overview
from devstack.console.rounds import Round
from devstack.console.routes import Routes
from devstack.console.server import Server
from devstack.console.spans import SpanWriter
from devstack.console.traces import Traces
from devstack.console.works import REQUESTS, link, meaning
from devstack.layout import Layout
from devstack.logs.events import Level
from devstack.logs.selection import Selection
from devstack.mails import Mailbox
from devstack.state import ProcessState, StackState
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

GET = 'backend_http_requests_total{operation="getOrder",outcome="%s"}'
BUCKET = 'backend_http_request_duration_seconds_bucket{operation="getOrder",le="%s"}'


def round_of(at: float, ready: bool = True, **of_processes: dict[str, float] | None) -> Round:
    """What was found once; a process without numbers did not answer."""
    processes = [ProcessState(name.replace("_", "-"), "ready") for name in of_processes]
    endpoints = {f"{process.name}_ops": "http://127.0.0.1:1" for process in processes}
    stack = StackState(1, 0.0, 0, ready=ready, endpoints=endpoints, processes=processes)
    told = {name.replace("_", "-"): of_one for name, of_one in of_processes.items() if of_one is not None}
    return Round(at, stack, {process.name: "ready" for process in processes}, {}, told)


def test_the_numbers_of_what_is_wanted_are_read_whatever_their_labels_say() -> None:
    text = '# TYPE a counter\na{x="1} 2",y="q\\"\\\\"} 3\nb 1e3\nc 4\na{x="nan"} none\n'
    found = numbers(text, {"a", "b"})
    assert found == {'a{x="1} 2",y="q\\"\\\\"}': 3.0, "b": 1000.0}
    assert labels('a{x="1} 2",y="q\\"\\\\"}') == {"x": "1} 2", "y": 'q"\\'}


def test_what_is_counted_is_what_came_since_in_all_replicas_also_when_one_begins_anew() -> None:
    past = History(meaning)
    past.add(round_of(100, bff={GET % "OK": 1000.0}, bff_2={GET % "OK": 50.0}))
    past.add(round_of(102, bff={GET % "OK": 1010.0, GET % "NOT_FOUND": 2.0}, bff_2={GET % "OK": 4.0}))
    past.add(round_of(110, bff={GET % "OK": 1010.0, GET % "NOT_FOUND": 2.0, GET % "INTERNAL": 1.0}, bff_2=None))
    found = total(past.slots(0))["http", "bff getOrder"]
    assert (found.count, found.refused, found.failed) == (10 + 2 + 4 + 1, 2, 1)
    assert total(past.slots(150)) == {}


def test_slots_are_bounded_in_number_and_in_what_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_MOST_WORKS", 10)
    past = History(lambda _process, series: [Part(("kind", series))])
    for number in range(400):
        past.add(round_of(6.0 * number, bff={f"s{one}": float(number) for one in range(50)}))
    slots = past.slots(0)
    assert len(slots) <= history.MOST_SLOTS + 1
    assert {len(slot.works) for slot in slots} == {10}


@pytest.mark.parametrize(
    ("buckets", "share", "seconds"),
    [
        ({}, 0.5, None),
        # All within one bucket, evenly: between its bounds, not from nought.
        ({0.01: 10, 0.025: 10, float("inf"): 10}, 0.5, 0.0075),
        ({0.001: 50, 0.0025: 100, float("inf"): 100}, 0.5, 0.001),
        ({float("inf"): 3}, 0.95, 10.0),
    ],
)
def test_a_quantile_is_within_its_bucket(buckets: dict[float, float], share: float, seconds: float | None) -> None:
    assert Work(buckets=buckets).quantile(share) == pytest.approx(seconds)


def test_arrows_rows_and_meters_follow_from_what_processes_tell(tmp_path: Path) -> None:
    past, layout = History(meaning), Layout(tmp_path)
    calls = 'backend_calls_total{method="order.v1.OrderService/GetOrder",outcome="%s"}'
    edge = 'envoy_http_downstream_rq_xx{envoy_response_code_class="%d",envoy_http_conn_manager_prefix="ingress"}'
    gauges = {
        "backend_database_users": 13.0, "backend_database_connections_max": 10.0,
        'backend_worker_running{worker="sweep"}': 0.0, "backend_valkey_connected": 1.0,
        'envoy_cluster_membership_total{envoy_cluster_name="user"}': 2.0,
        'envoy_cluster_circuit_breakers_default_rq_open{envoy_cluster_name="user"}': 1.0,
    }  # fmt: skip
    past.add(round_of(100, bff={}, edge={}))
    last = round_of(
        104,
        bff={calls % "OK": 6.0, calls % "UNAVAILABLE": 2.0, GET % "OK": 8.0, BUCKET % "0.005": 8.0, BUCKET % "+Inf": 8.0, **gauges},
        edge={edge % 2: 5.0, edge % 4: 2.0, edge % 5: 1.0},
    )  # fmt: skip
    past.add(last)
    told = overview(last, past, [], layout, 60)
    arrows = {(one.caller, one.callee): (one.count, one.refused, one.failed) for one in told.links}
    expected = {("bff", "order"): (8, 0, 2), ("clients", "edge"): (8, 2, 1)}
    assert {arrow: arrows[arrow] for arrow in expected} == expected
    assert [told.total.count, told.total.refused, told.total.failed] == [8, 2, 1]
    assert ("order", "postgres") in arrows
    (row,) = told.rows
    assert [row.title, row.service, row.count] == ["GET /v1/orders/{order_id}", "bff", 8]
    assert row.p95 == pytest.approx(0.00488, rel=0.1)
    inside = next(one for one in told.inside if one.process == "bff")
    assert inside.pool is not None
    assert (inside.pool.value, inside.pool.most, inside.pool.waiting) == (10, 10, 3)
    assert [(worker.name, worker.running) for worker in inside.workers] == [("sweep", False)]
    assert [(one.name, one.members, one.healthy, one.open) for one in inside.clusters] == [("user", 2, 0, ["requests"])]
    assert course(past, *REQUESTS).points[-1].failed == 0.25
    assert link("bff", "order") == ("link", "bff>order")


def test_an_alert_is_active_by_the_rules_of_prometheus_and_has_its_runbook() -> None:
    alerts = Alerts()
    for at in range(0, 120, 5):
        alerts.evaluate(round_of(float(at), bff={}, user={}, order={}, notification={}, limiter={}, edge={}))
    assert alerts.active == []
    spent = 'backend_database_use_duration_seconds_sum{statement="connection"}'
    for at in range(120, 480, 5):
        # Of every second, twelve: more than ten connections have.
        full = {spent: 12.0 * at, "backend_database_connections_max": 10.0}
        alerts.evaluate(round_of(float(at), bff={}, user={}, order=full, notification={}, limiter=None, edge={}))
    assert {(one.name, one.runbook) for one in alerts.active} == {
        ("ProcessDown", "docs/runbooks/process-down.md"), ("PoolExhausted", "docs/runbooks/pool-exhausted.md"),
    }  # fmt: skip
    assert any("limiter" in one.summary for one in alerts.active)
    assert all(120 <= one.since < 480 for one in alerts.active)
    # What is kept does not grow with time.
    kept = [len(samples) for of_metric in alerts._samples.values() for samples in of_metric.values()]
    assert max(kept) <= 31
    for at in range(480, 900, 5):
        alerts.evaluate(round_of(float(at), bff={}, user={}, order={}, notification={}, limiter={}, edge={}))
    assert alerts.active == []


def entry(second: int, event: str, **fields: object) -> str:
    return json.dumps({"time": f"2026-01-31T12:00:{second:02d}Z", "level": "info", "event": event, **fields}) + "\n"


def test_lines_of_all_logs_come_by_time_once_and_as_they_are_selected(tmp_path: Path) -> None:
    (tmp_path / "bff.log").write_text(entry(2, "second", request_id="r1") + entry(4, "half")[:20], encoding="utf-8")
    (tmp_path / "order.log").write_text(entry(1, "first") + entry(3, "third", level="error"), encoding="utf-8")
    lines = LogLines(tmp_path)
    lines.read()
    first = lines.after(0, Selection())
    assert [line.text for line in first.lines] == ["first", "second", "third"]
    assert [line.text for line in lines.after(0, Selection(level=Level.ERROR)).lines] == ["third"]
    assert [line.text for line in lines.after(0, Selection(request_id="r1")).lines] == ["second"]
    assert [line.text for line in lines.after(0, Selection(names=frozenset(["order"])), "THI").lines] == ["third"]
    with (tmp_path / "bff.log").open("a", encoding="utf-8") as log:
        log.write(entry(4, "half")[20:])
    lines.read()
    assert [line.text for line in lines.after(first.last, Selection()).lines] == ["half"]
    # Made short, as the supervisor does it, and written anew.
    (tmp_path / "bff.log").write_text(entry(5, "anew"), encoding="utf-8")
    lines.read()
    assert [line.text for line in lines.after(first.last + 1, Selection()).lines] == ["anew"]


def test_of_a_long_stack_its_beginning_and_its_end_are_shown(tmp_path: Path) -> None:
    stack = "\n".join(
        ["Traceback (most recent call last):", *(f'  File "{number}.py"' for number in range(500)), "Why"]
    )
    event = {"time": "2026-11-27T12:00:00Z", "level": "error", "event": "unexpected error", "exception": stack}
    (tmp_path / "order.log").write_text(json.dumps(event) + "\n", encoding="utf-8")
    lines = LogLines(tmp_path)
    lines.read()
    (line,) = lines.after(0, Selection()).lines
    assert line.more.startswith("Traceback (most recent call last):")
    assert line.more.endswith("Why")
    assert len(line.more) < 2_100


def test_a_huge_log_is_read_from_its_end_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    log = tmp_path / "bff.log"
    log.write_text("".join(entry(1, f"old {number}") for number in range(50_000)), encoding="utf-8")
    lines = LogLines(tmp_path)
    lines.read()
    assert 0 < lines._number < 5_000
    with log.open("a", encoding="utf-8") as more:
        more.writelines(entry(2, f"new {number}") for number in range(50_000))
        more.write("x" * 3_000_000 + "\n" + "[" * 100_000 + "\n" + entry(3, "last" + "y" * 10**5))
    lines.read()
    told = lines.after(0, Selection()).lines
    assert "too fast to be shown" in told[-1].text
    assert told[-2].text.startswith("last")
    assert len(told[-2].text) < 3_000
    assert len(lines._held) <= log_lines.MOST_HELD
    assert len(msgspec.json.encode(told)) < 3 * 2**20


def trace(number: int, milliseconds: int, *, failed: bool = False, began: int = 0) -> bytes:
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "bff"
    began = began or time.time_ns()
    resource.scope_spans.add().spans.add(
        trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name=f"request {number}", kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=began, end_time_unix_nano=began + milliseconds * 10**6,
        status=Status(code=Status.STATUS_CODE_ERROR) if failed else None,
    )  # fmt: skip
    return message.SerializeToString()


def test_failed_and_slow_traces_are_first_and_are_known_longest(tmp_path: Path) -> None:
    writer, found = SpanWriter(tmp_path), Traces(tmp_path)
    for body in (trace(1, 5, failed=True), trace(2, 1500), trace(3, 10)):
        writer.add(body)
    assert [(one.name, one.failed, one.slow) for one in found.recent()] == [
        ("request 1", True, False), ("request 2", False, True), ("request 3", False, False),
    ]  # fmt: skip
    for number in range(10, 2_000):
        writer.add(trace(number, 1))
    told = found.recent()
    assert [one.name for one in told[:3]] == ["request 1", "request 2", "request 1999"]
    assert len(told) <= 3 * traces.MOST_TOLD
    assert len(found._known) <= traces._MOST_KNOWN
    writer.close()


def test_of_a_trace_without_end_and_deeper_than_pythons_stack_so_much_is_shown_as_can_be_read(tmp_path: Path) -> None:
    writer = SpanWriter(tmp_path)
    message = ExportTraceServiceRequest()
    scope = message.resource_spans.add().scope_spans.add()
    for number in range(1, 25_000):
        span = scope.spans.add(
            trace_id=bytes([7] * 16), span_id=number.to_bytes(8, "big"), parent_span_id=(number - 1).to_bytes(8, "big"),
            name="n" * 5_000 if number < 100 else "n", start_time_unix_nano=number, end_time_unix_nano=10**6,
        )  # fmt: skip
        span.attributes.add(key="key").value.string_value = "v" * 3_000 if number < 500 else ""
    writer.add(message.SerializeToString())
    whole = Traces(tmp_path).one(bytes([7] * 16).hex())
    assert whole is not None
    assert (len(whole.bars), whole.left_out) == (400, spans.MOST_SPANS - 400)
    assert len(msgspec.json.encode(whole)) < 2**20
    writer.close()


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
    return found


@pytest.fixture
async def url(tmp_path: Path, port: int) -> AsyncIterator[str]:
    layout = Layout(tmp_path)
    layout.logs.mkdir()
    writer = SpanWriter(layout.spans)
    listening = await Server(Routes(layout, writer, print).answer, port, print).start()
    yield f"http://127.0.0.1:{port}"
    listening.close()
    writer.close()


PATHS = ("/", "/main.js", "/data/overview", "/data/logs", "/data/traces", "/data/mails", "/docs/runbooks/errors.md")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "attacker.example"},
        {"host": "127.0.0.1.attacker.example"},
        {"host": ""},
        {"origin": "http://attacker.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
        # Another port of this machine, such as an API's page.
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
    ],
)
async def test_other_pages_are_told_nothing(url: str, path: str, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        refused = await client.get(path, headers=headers)
        assert (refused.status_code, refused.content) == (403, b"")


async def test_our_page_is_answered_and_a_link_leads_to_it(url: str) -> None:
    own = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "origin": url}
    async with httpx.AsyncClient(base_url=url) as client:
        for path in PATHS:
            answer = await client.get(path, headers=own)
            assert answer.status_code == 200, path
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "require-trusted-types-for 'script'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
        link_followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
        assert (await client.get("/", headers=link_followed)).status_code == 200
        assert (await client.get("/data/overview", headers=link_followed)).status_code == 403
        assert (await client.head("/")).status_code == 200
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert (await client.request(method, "/data/overview")).status_code == 405
        for path in ("/page/../server.py", "/docs/../README.md", "/docs/runbooks/..%2f..%2fconftest.py", "/none"):
            assert (await client.get(path)).status_code == 404, path


async def test_a_mails_markup_is_a_document_that_runs_nothing(url: str, tmp_path: Path) -> None:
    content = (
        b"Subject: <b>one</b>\r\nMessage-ID: <1@x.example>\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nplain\r\n--b\r\nContent-Type: text/html\r\n\r\n<script>1</script>\r\n--b--\r\n"
    )
    Mailbox(Layout(tmp_path).mails).keep(content, "ada@example.com", datetime.now(UTC))
    async with httpx.AsyncClient(base_url=url) as client:
        (mail,) = (await client.get("/data/mails")).json()
        assert (mail["subject"], mail["text"], mail["recipient"]) == ("<b>one</b>", "plain", "ada@example.com")
        assert "script" not in str(mail)
        answer = await client.get(f"/mails/{mail['id']}")
        assert (answer.text, answer.headers["content-type"]) == ("<script>1</script>", "text/html; charset=utf-8")
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("sandbox; default-src 'none'; ")
        assert "allow-scripts" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        for nothing in ("0" * 16, "../state.json", "..%2fstate.json", ""):
            assert (await client.get(f"/mails/{nothing}")).status_code == 404
        for headers in ({"host": "attacker.example"}, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}):
            assert (await client.get(f"/mails/{mail['id']}", headers=headers)).status_code == 403


async def test_whoever_holds_connections_or_does_not_read_keeps_nobody_else_out(
    url: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 60)
    monkeypatch.setattr(server, "SEND_SECONDS", 1.0)
    held = []
    for number in range(200):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        # Some say nothing, some half of something, some ask for much and read none of it.
        message = (b"", b"GET / HTTP", b"GET /console.css HTTP/1.1\r\nhost: localhost\r\n\r\n" * 50)[number % 3]
        writer.write(message)
        held.append((reader, writer))
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        for _ in range(3):
            assert (await client.get("/healthz/ready")).status_code == 200
            assert (await client.get("/data/overview")).status_code == 200
    for _, writer in held:
        writer.transport.abort()
