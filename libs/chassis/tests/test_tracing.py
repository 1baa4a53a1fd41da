"""What is recorded of a request, what of it is kept, and what an OTLP receiver and other people's libraries see of it."""

from __future__ import annotations

import asyncio
import gc
import gzip
import importlib
import pkgutil
import threading
import time
import weakref
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import opentelemetry.semconv._incubating.attributes as registry
import pytest
from chassis.config import Settings
from chassis.context import RequestContext, accept_traceparent
from chassis.errors import ServiceError
from chassis.grpc.peer import Peer
from chassis.metrics.exposition import exposition
from chassis.metrics.families import FAMILIES
from chassis.observe import Work, observe, served
from chassis.presence import Presence
from chassis.tracing import conventions, otlp, spans
from chassis.tracing.exporter import Exporter
from chassis.tracing.process import Tracing
from chassis.tracing.spans import MOST_SPANS, Description, Trace
from contracts.order.v1.order_pb2 import GetOrderRequest, Order
from contracts.order.v1.order_pb2_grpc import OrderServiceStub
from opentelemetry import trace as api
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.semconv.schemas import Schemas

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
UNSAMPLED = f"00-{TRACE_ID}-00f067aa0ba902b7-00"
GET_THING = Work("http", "getThing", served, conventions.http_server("GET", "/v1/things/{thing_id}"))
RPC = Work("rpc", "thing.v1.Things/Get", served, conventions.rpc_server("thing.v1.Things/Get"))
READ = Work("database", "GetThing", span=conventions.sql("GetThing", "SELECT 1 WHERE id = $1", "thingdb"))
LOOK = Work("valkey", "GET", span=conventions.valkey("GET"))


class Kept:
    """A sink that keeps."""

    def __init__(self) -> None:
        self.traces: list[Trace] = []

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def take(self, trace: Trace) -> None:
        self.traces.append(trace)

    def counts(self) -> dict[str, int]:
        return {"taken": len(self.traces)}


@pytest.fixture
def kept() -> Iterator[Kept]:
    sink = Kept()
    with Tracing(sink, slow_seconds=0.05):
        yield sink


def serve(traceparent: str, *parts: Work, work: Work = GET_THING, error: Exception | None = None) -> None:
    """A request that does these parts, one after the other, and fails in the last of them when it is to fail."""

    def fail() -> None:
        if error is not None:
            raise error

    try:
        with observe(work, RequestContext("request-1", traceparent=traceparent)):
            for part in parts[:-1]:
                with observe(part):
                    pass
            if parts:
                with observe(parts[-1]):
                    fail()
            fail()
    except ServiceError:
        pass


def encoded(traces: list[Trace]) -> list[Span]:
    """The spans as a receiver reads them."""
    request = ExportTraceServiceRequest.FromString(otlp.request(traces, {"service.name": "thing"}))
    (resource,) = request.resource_spans
    assert resource.resource.attributes == [_text("service.name", "thing")]
    (scope,) = resource.scope_spans
    assert (scope.scope.name, resource.schema_url) == ("backend-chassis", scope.schema_url)
    return list(scope.spans)


def _text(key: str, value: str) -> KeyValue:
    found = KeyValue(key=key)
    found.value.string_value = value
    return found


def said(span: Span) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for attribute in span.attributes:
        kind = attribute.value.WhichOneof("value")
        value = getattr(attribute.value, str(kind))
        found[attribute.key] = [one.string_value for one in value.values] if kind == "array_value" else value
    return found


def test_a_sampled_request_is_a_tree_of_its_units_of_work(kept: Kept) -> None:
    before = time.time_ns()
    serve(SAMPLED, READ, LOOK)
    read, look, root = encoded(kept.traces)
    assert {span.trace_id.hex() for span in (read, look, root)} == {TRACE_ID}
    assert root.parent_span_id.hex() == "00f067aa0ba902b7"
    assert {read.parent_span_id, look.parent_span_id} == {root.span_id}
    assert len({read.span_id, look.span_id, root.span_id}) == 3
    assert (root.name, root.kind) == ("GET /v1/things/{thing_id}", Span.SPAN_KIND_SERVER)
    assert (read.name, read.kind) == ("GetThing", Span.SPAN_KIND_CLIENT)
    assert before - 10**7 <= root.start_time_unix_nano <= read.start_time_unix_nano <= read.end_time_unix_nano
    assert read.end_time_unix_nano <= look.start_time_unix_nano
    assert look.end_time_unix_nano <= root.end_time_unix_nano <= time.time_ns() + 10**7
    assert said(read) == {
        "db.system.name": "postgresql", "db.namespace": "thingdb", "db.operation.name": "SELECT",
        "db.query.summary": "GetThing", "db.query.text": "SELECT 1 WHERE id = $1",
    }  # fmt: skip
    assert said(root)["http.request.header.x-request-id"] == ["request-1"]
    # Of the trace's own flags, and that its parent is another process's.
    assert (root.flags, read.flags) == (0x301, 0x101)


@pytest.mark.parametrize("traceparent", [UNSAMPLED, ""])
def test_of_what_is_not_sampled_only_failures_of_ours_and_slow_requests_are_kept(kept: Kept, traceparent: str) -> None:
    serve(traceparent, READ)
    serve(traceparent, READ, error=ServiceError("NOT_FOUND"))
    serve(traceparent, READ, error=ServiceError("RATE_LIMITED"))
    assert kept.traces == []
    serve(traceparent, LOOK, READ, error=ServiceError("UNAVAILABLE"))
    look, read, root = encoded(kept.traces)
    assert [span.status.code for span in (look, read, root)] == [0, Status.STATUS_CODE_ERROR, Status.STATUS_CODE_ERROR]
    assert said(read)["error.type"] == "UNAVAILABLE"
    assert said(root)["http.response.status_code"] == 503
    with observe(GET_THING, RequestContext("request-2", traceparent=traceparent)):
        time.sleep(0.06)
    assert len(kept.traces) == 2


def test_when_everything_fails_only_the_first_are_kept(kept: Kept) -> None:
    for _ in range(1000):
        serve(UNSAMPLED, error=ServiceError("INTERNAL"))
    assert 50 <= len(kept.traces) < 100
    # Who was sampled is kept all the same.
    serve(SAMPLED, error=ServiceError("INTERNAL"))
    assert kept.traces[-1].is_sampled


def test_an_unexpected_errors_message_is_no_part_of_a_span(kept: Kept) -> None:
    class UniqueViolationError(Exception):
        sqlstate = "23505"

    serve(SAMPLED, READ, error=UniqueViolationError("Key (email)=(ada@example.com) already exists"))
    read, root = encoded(kept.traces)
    assert (said(read)["error.type"], said(read)["db.response.status_code"]) == ("UniqueViolationError", "23505")
    assert said(root)["error.type"] == "INTERNAL"
    assert b"ada@example.com" not in otlp.request(kept.traces, {})


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/things/0197f6a2-5d6e-7cc3-9f6e-6c3c0b6ad0a1", "/v1/things/0197f6a2-5d6e-7cc3-9f6e-6c3c0b6ad0a1"),
        ("/v1/things/ada@example.com", "/v1/things/REDACTED"),
    ],
)
def test_of_a_path_only_ids_are_said(kept: Kept, path: str, shown: str) -> None:
    with observe(GET_THING, RequestContext("request-1", traceparent=SAMPLED)) as unit:
        assert unit.span is not None
        unit.span.trace.path = path
        unit.span.trace.status = 200
    (root,) = encoded(kept.traces)
    assert (said(root)["url.path"], said(root)["http.response.status_code"]) == (shown, 200)


async def test_a_callee_is_told_the_call_that_it_belongs_to(kept: Kept) -> None:
    sent: list[str] = []

    class Wire:
        def unary_unary(self, *_: Any) -> Any:
            async def send(_request: Any, *, timeout: Any, metadata: Any) -> Any:
                sent.append(dict(metadata)["traceparent"])
                return Order()

            return send

        unary_stream = unary_unary

    stub = Peer(Wire(), "order").stub(OrderServiceStub)
    call: Any = stub.GetOrder
    for traceparent in (SAMPLED, UNSAMPLED):
        with observe(GET_THING, RequestContext("request-1", traceparent=traceparent)):
            await asyncio.gather(call(GetOrderRequest()), call(GetOrderRequest()))
    with observe(GET_THING, RequestContext("request-1", traceparent=UNSAMPLED)):
        pass
    first, second, root = encoded(kept.traces)
    assert {first.parent_span_id, second.parent_span_id} == {root.span_id}
    told = {f"00-{TRACE_ID}-{span.span_id.hex()}-01" for span in (first, second)}
    assert set(sent[:2]) == told
    # One that is not sampled says so, and whose part it is: when both ends fail, one finds the other.
    assert all(accept_traceparent(one) and one.endswith("-00") and one != UNSAMPLED for one in sent[2:])
    assert said(first) == {
        "rpc.system.name": "grpc", "rpc.method": "order.v1.OrderService/GetOrder", "server.address": "order",
        "rpc.response.status_code": "OK",
    }  # fmt: skip


def test_without_anybody_who_listens_nothing_is_recorded() -> None:
    with observe(GET_THING, RequestContext("request-1", traceparent=SAMPLED)) as unit, observe(READ) as part:
        assert unit.span is None
        assert part.span is None


def test_one_request_is_recorded_up_to_a_bound(kept: Kept) -> None:
    serve(SAMPLED, *[LOOK] * (MOST_SPANS + 10))
    found = encoded(kept.traces)
    assert len(found) == MOST_SPANS + 1
    assert said(found[-1])["backend.spans_lost"] == 10


async def test_what_a_request_leaves_behind_is_no_part_of_it(kept: Kept) -> None:
    async def go_on() -> None:
        await asyncio.sleep(0)
        for _ in range(3):
            with observe(LOOK):
                pass

    with observe(GET_THING, RequestContext("request-1", traceparent=SAMPLED)):
        left = asyncio.create_task(go_on())
    await left
    assert len(kept.traces[0].spans) == 1


def test_what_waits_to_be_sent_holds_nothing_of_its_request(kept: Kept) -> None:
    """A span is the object that was around the unit of work, which knew the request's context and with it its token."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    known = weakref.ref(receive)
    current = RequestContext("request-1", traceparent=SAMPLED, presence=Presence(receive, 1.0))
    del receive
    with observe(GET_THING, current):
        del current
        assert known() is not None
    assert len(kept.traces[0].spans) == 1
    assert known() is None


@pytest.mark.parametrize("traceparent", [SAMPLED, UNSAMPLED])
def test_a_transaction_has_parts_also_of_a_request_that_is_not_sampled(kept: Kept, traceparent: str) -> None:
    transaction = Work("database", "transaction", span=conventions.pool("transaction", "thingdb"))
    with pytest.raises(ServiceError), observe(GET_THING, RequestContext("request-1", traceparent=traceparent)):
        with observe(transaction), observe(READ), observe(LOOK):
            pass
        with observe(LOOK):
            raise ServiceError("UNAVAILABLE")
    look, read, within, after, root = encoded(kept.traces)
    assert within.parent_span_id == after.parent_span_id == root.span_id
    assert read.parent_span_id == within.span_id
    # Only libraries begin something within a statement, and they are not asked unless the request is sampled.
    assert look.parent_span_id == (read if traceparent == SAMPLED else within).span_id


def test_every_name_is_one_of_the_published_conventions(kept: Kept) -> None:
    names = {
        value
        for module in pkgutil.iter_modules(registry.__path__, registry.__name__ + ".")
        for key, value in vars(importlib.import_module(module.name)).items()
        if key.isupper() and isinstance(value, str)
    }
    serve(SAMPLED, READ, LOOK, error=ServiceError("UNAVAILABLE"))
    serve(SAMPLED, error=ServiceError("NOT_FOUND"))
    serve(SAMPLED, work=RPC)
    call = Work("call", "a.B/C", span=conventions.rpc_client("a.B/C", "order"))
    serve(SAMPLED, call, Work("database", "transaction", span=conventions.pool("transaction", "db")), work=RPC)
    used = {name for span in encoded(kept.traces) for name in said(span)}
    # A header's and a metadata's name are the end of their attribute's.
    known = {name.removesuffix(".x-request-id") for name in used if not name.startswith("backend.")}
    assert known <= names, known - names
    assert (
        max((schema.value for schema in Schemas), key=lambda url: [int(n) for n in url.rpartition("/")[2].split(".")])
        == otlp.SCHEMA_URL
    )


def test_a_traceparent_that_is_none_begins_a_trace() -> None:
    for wrong in ("", "hello", UNSAMPLED + "0", UNSAMPLED.replace(TRACE_ID, "0" * 32), "ff" + UNSAMPLED[2:]):
        assert accept_traceparent(wrong) == ""
    assert Trace("", "request-1").is_sampled is False
    assert accept_traceparent(Trace("", "request-1").traceparent[:36] + "00f067aa0ba902b7-00")


class Receiver:
    """An OTLP receiver that counts."""

    def __init__(self, status: int = 200, *, hangs_up: bool = False) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers["content-encoding"] == "gzip":
                    body = gzip.decompress(body)
                receiver.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(status if self.path == "/v1/traces" else 404)
                self.send_header("content-length", "0")
                self.end_headers()
                # Without having said so.
                self.close_connection = hangs_up

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.stop()


def settings(endpoint: str, **more: str) -> Settings:
    return Settings.model_validate({"otel_exporter_otlp_endpoint": endpoint, **more})


@pytest.mark.parametrize("tracer", ["lean", "sdk"])
@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_what_is_kept_arrives(receiver: Receiver, tracer: str, compression: str) -> None:
    configured = settings(receiver.url, tracer=tracer, otel_exporter_otlp_compression=compression)
    with Tracing.configured("thing", configured):
        serve(SAMPLED, READ, LOOK)
        serve(UNSAMPLED, READ, error=ServiceError("INTERNAL"))
    found = receiver.spans()
    assert len(found) == 5
    read, look, root = found[:3]
    assert {read.parent_span_id, look.parent_span_id} == {root.span_id}
    assert root.parent_span_id.hex() == "00f067aa0ba902b7"
    assert {span.trace_id.hex() for span in found} == {TRACE_ID}
    assert (read.name, said(read)["db.query.summary"]) == ("GetThing", "GetThing")
    resource = receiver.requests[0].resource_spans[0].resource
    assert _text("service.name", "thing") in resource.attributes


def exporter(endpoint: str, most_waiting: int) -> Exporter:
    return Exporter(endpoint, {"service.name": "thing"}, compress=False, most_waiting=most_waiting)


def test_a_dead_receiver_costs_a_counter_and_no_more_memory_than_a_queue() -> None:
    sink = exporter("http://127.0.0.1:9", 100)
    with Tracing(sink):
        for _ in range(1000):
            serve(SAMPLED, READ)
        assert len(sink._waiting) <= 50
    assert sink.sent == 0
    assert sink.failed + sink.dropped == 2000
    assert sink.dropped >= 1500
    _, text = exposition(FAMILIES.values(), "", open_metrics=False)
    assert f'backend_spans_total{{outcome="dropped"}} {sink.dropped}\n' in text
    assert 'backend_traces_kept_total{reason="sampled"} 1000\n' in text


def test_a_receiver_that_refuses_costs_a_counter() -> None:
    receiver = Receiver(status=503)
    sink = exporter(receiver.url, 100)
    with Tracing(sink):
        serve(SAMPLED, READ)
    receiver.stop()
    assert (sink.sent, sink.failed) == (0, 2)


def sent(sink: Exporter, count: int) -> None:
    """Wait until so many have been."""
    give_up = time.monotonic() + 30
    while sink.sent + sink.failed < count:
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_connection_that_the_receiver_has_ended_costs_nothing() -> None:
    receiver = Receiver(hangs_up=True)
    sink = exporter(receiver.url, 100)
    with Tracing(sink):
        for number in (1, 2, 3):
            serve(SAMPLED, READ)
            sent(sink, 2 * number)
    receiver.stop()
    assert (sink.sent, sink.failed, len(receiver.spans())) == (6, 0, 6)


def test_what_cannot_be_encoded_costs_its_batch_and_not_what_comes_after(receiver: Receiver) -> None:
    sink = exporter(receiver.url, 100)
    with Tracing(sink):
        serve(SAMPLED, Work("database", "bad", span=Description("no UTF-8: \ud800")))
        sent(sink, 2)
        serve(SAMPLED, READ)
    assert (sink.sent, sink.failed) == (2, 2)


def test_a_librarys_span_is_a_part_of_ours_and_has_parts_of_its_own(kept: Kept) -> None:
    tracer = api.get_tracer("some.library")
    with observe(GET_THING, RequestContext("request-1", traceparent=SAMPLED)):
        with tracer.start_as_current_span("render", attributes={"page": 3}) as span, observe(READ):
            assert api.get_current_span() is span
        side = tracer.start_span("side")
        with observe(LOOK):
            pass
        side.end()
    read, render, look, side_span, root = encoded(kept.traces)
    assert (render.name, said(render)["page"]) == ("render", 3)
    assert (read.parent_span_id, render.parent_span_id) == (render.span_id, root.span_id)
    assert (look.parent_span_id, side_span.parent_span_id) == (root.span_id, root.span_id)


def test_a_library_makes_no_span_where_none_is_sampled(kept: Kept) -> None:
    tracer = api.get_tracer("some.library")
    with observe(GET_THING, RequestContext("request-1", traceparent=UNSAMPLED)), tracer.start_as_current_span("x") as s:
        assert not s.is_recording()
        assert f"{s.get_span_context().trace_id:032x}" == TRACE_ID
    with tracer.start_as_current_span("outside") as outside:
        assert not outside.is_recording()
    assert kept.traces == []


def test_a_librarys_exception_is_said_by_its_type(kept: Kept) -> None:
    tracer = api.get_tracer("some.library")
    with (
        pytest.raises(ServiceError),
        observe(GET_THING, RequestContext("request-1", traceparent=SAMPLED)),
        tracer.start_as_current_span("parse"),
    ):
        raise ValueError("hunter2")
    parse, _root = encoded(kept.traces)
    assert (said(parse), parse.status.code) == ({"error.type": "ValueError"}, Status.STATUS_CODE_ERROR)


def test_the_generated_queries_name_their_statements() -> None:
    from chassis.database import _statement

    queries = Path(__file__).resolve().parents[3] / "services/order/src/order/repository/queries.py"
    assert '"""-- name: GetOrder\nSELECT' in queries.read_text(encoding="utf-8")
    work = _statement("-- name: GetOrder\nSELECT id FROM orders WHERE id = $1\n", "orderdb")
    assert work.name == "GetOrder"
    assert work.span is not None
    assert work.span.attributes["db.query.text"] == "SELECT id FROM orders WHERE id = $1"


@pytest.mark.parametrize(("outcome", "is_error"), [("NOT_FOUND", False), ("UNAVAILABLE", True), ("ValueError", True)])
def test_a_callers_mistake_is_no_error_of_the_server(kept: Kept, outcome: str, is_error: bool) -> None:
    span = spans.Span()
    span.began = time.perf_counter()
    span.record(Trace(SAMPLED, "request-1"), None, conventions.rpc_server("thing.v1.Things/Get"))
    span.end(time.perf_counter(), outcome)
    (root,) = encoded(kept.traces)
    assert (root.status.code == Status.STATUS_CODE_ERROR) is is_error
    code = said(root)["rpc.response.status_code"]
    assert code in grpc.StatusCode.__members__


def test_what_is_not_kept_is_no_work_for_the_garbage_collector(kept: Kept) -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            serve(UNSAMPLED, READ, LOOK)
        assert gc.collect() < 100
    finally:
        gc.enable()
