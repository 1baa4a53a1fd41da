"""What the console takes, what it keeps and for how long, and what is read of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from devstack.console import server as console
from devstack.console import spans, tree
from devstack.console.routes import Routes
from devstack.console.server import Server
from devstack.console.spans import SpanWriter
from devstack.console.traces import Traces
from devstack.layout import Layout
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

TRACE, OTHER = "4bf92f3577b34da6a3ce929d0e0e4736", "5bf92f3577b34da6a3ce929d0e0e4736"
PROTOBUF = {"content-type": "application/x-protobuf"}


def request(trace_id: str, *ids: tuple[str, str], request_id: str = "", service: str = "order") -> bytes:
    """Spans of one trace: each with its parent's id, a millisecond after each other; the first says the request's id."""
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    scope = resource.scope_spans.add()
    for number, (span_id, parent_id) in enumerate(ids):
        span = scope.spans.add(
            trace_id=bytes.fromhex(trace_id), span_id=bytes.fromhex(span_id), parent_span_id=bytes.fromhex(parent_id),
            name=f"span {span_id[-1:]}", start_time_unix_nano=10**6 * number, end_time_unix_nano=10**8,
        )  # fmt: skip
        if request_id and number == 0:
            value = span.attributes.add(key="http.request.header.x-request-id").value
            value.array_value.values.add(string_value=request_id)
    return message.SerializeToString()


def hexadecimal(number: int) -> str:
    return f"{number:016x}"


ONE, TWO, THREE = map(hexadecimal, (1, 2, 3))


@pytest.fixture
async def http(tmp_path: Path, unused_port: int) -> AsyncIterator[httpx.AsyncClient]:
    layout = Layout(tmp_path)
    writer = SpanWriter(layout.spans)
    listening = await Server(Routes(layout, writer, print).answer, unused_port, print).start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{unused_port}") as client:
        yield client
    listening.close()
    writer.close()


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def test_what_is_sent_is_found_by_the_requests_id_and_by_the_traces(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    first = request(TRACE, (ONE, ""), (TWO, ONE), request_id="request-1", service="bff")
    for body, headers in (
        (first, {}),
        (gzip.compress(request(TRACE, (THREE, TWO))), {"content-encoding": "gzip"}),
        (request(OTHER, (ONE, ""), request_id="request-10"), {}),
    ):
        answer = await http.post("/v1/traces", content=body, headers=PROTOBUF | headers)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-protobuf")
    for name in ("request-1", TRACE):
        found = spans.of_request(Layout(tmp_path).spans, name)
        assert [(span.service, span.name, span.trace_id) for span in found.spans] == [
            ("bff", "span 1", TRACE), ("order", "span 3", TRACE), ("bff", "span 2", TRACE),
        ]  # fmt: skip
    assert len(spans.of_request(Layout(tmp_path).spans, "request-10").spans) == 1
    for name in ("request-", "f" * 32, "g" * 32):
        assert spans.of_request(Layout(tmp_path).spans, name) == spans.Found([])


def kept_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())


# mtime=0: a body is part of its test's name, which each worker of a run makes for itself.
@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/v1/traces", {"content-type": "application/json"}, b"{}", 415),
        # As a web page may send it without asking.
        ("/v1/traces", {"content-type": "text/plain"}, b"", 415),
        ("/v1/traces", PROTOBUF, b"\xff\xff\xff", 400),
        ("/v1/traces", PROTOBUF | {"content-encoding": "gzip"}, b"no gzip", 400),
        ("/v1/traces", PROTOBUF | {"content-encoding": "gzip"}, gzip.compress(b"", mtime=0)[:10] + b"\xff" * 20, 400),
        ("/v1/traces", PROTOBUF | {"content-encoding": "gzip"}, gzip.compress(bytes(1000), mtime=0)[:-9], 400),
        ("/v1/traces", PROTOBUF | {"content-encoding": "gzip"}, gzip.compress(b"\0" * (17 * 2**20), mtime=0), 413),
        ("/v1/traces", PROTOBUF, b"\0" * (console.MOST_BODY_BYTES + 1), 413),
        ("/v1/traces", PROTOBUF | {"host": "attacker.example"}, request(TRACE, (ONE, "")), 403),
        ("/v1/other", PROTOBUF, b"", 405),
    ],
)  # fmt: skip
async def test_what_is_none_of_it_is_refused_and_not_kept(
    http: httpx.AsyncClient, tmp_path: Path, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    try:
        answer = await http.post(path, content=body, headers=headers)
        assert answer.status_code == status
    except httpx.WriteError:
        # Told before all of it was sent.
        assert status == 413
    assert kept_bytes(Layout(tmp_path).spans) == 0
    assert (await http.get("/healthz/ready")).status_code == 200


def test_no_more_is_kept_than_the_newest_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "_SEGMENT_BYTES", 1000)
    writer = SpanWriter(tmp_path)
    for number in range(1, 500):
        writer.add(request(f"{number:032x}", (ONE, "")))
    writer.close()
    assert kept_bytes(tmp_path) < 16 * 1200
    assert spans.of_request(tmp_path, f"{499:032x}").spans
    assert not spans.of_request(tmp_path, f"{1:032x}").spans


def test_what_is_older_than_an_hour_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "_SEGMENT_SECONDS", -1)
    writer = SpanWriter(tmp_path)
    writer.add(request(TRACE, (ONE, "")))
    writer.add(request(OTHER, (ONE, "")))
    old = time.time() - spans.KEPT_SECONDS - 1
    oldest = next(path for path in sorted(tmp_path.iterdir()) if path.stat().st_size)
    os.utime(oldest, (old, old))
    writer.remove_old()
    assert not spans.of_request(tmp_path, TRACE).spans
    assert spans.of_request(tmp_path, OTHER).spans
    writer.close()


def test_a_request_that_is_being_written_is_passed_over(tmp_path: Path) -> None:
    writer = SpanWriter(tmp_path)
    writer.add(request(TRACE, (ONE, "")))
    writer.close()
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for length in range(1, len(whole)):
        file.write_bytes(whole + whole[:length])
        assert len(spans.of_request(tmp_path, TRACE).spans) == 1


def test_a_tree_has_every_span_once_whatever_the_parents_are(tmp_path: Path) -> None:
    writer = SpanWriter(tmp_path)
    # Two that are each other's parent, one whose parent is not known, and a part of that.
    writer.add(request(TRACE, (ONE, TWO), (TWO, ONE), (THREE, hexadecimal(9)), (hexadecimal(4), THREE)))
    writer.close()
    found = spans.of_request(tmp_path, TRACE).spans
    assert [(node.span.name[-1], node.depth) for node in tree.nodes(found)] == [("3", 0), ("4", 1), ("1", 0), ("2", 1)]
    shown = list(tree.lines(found))
    assert len(shown) == 5
    assert "order  span 4" in shown[2]


def test_what_a_full_disk_has_cut_off_takes_nothing_with_it(tmp_path: Path) -> None:
    """Spans are lost while there is no room, and kept again once there is."""
    script = """
import resource, signal, sys
from pathlib import Path
from devstack.console.spans import SpanWriter
from devstack.console.traces import Traces

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer, request = SpanWriter(Path(sys.argv[1])), sys.stdin.buffer.read()
writer.add(request)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (len(request) + 50, limits[1]))
lost = 0
for _ in range(3):
    try:
        writer.add(request * 300)
    except OSError:
        lost += 1
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
writer.add(request)
writer.close()
print(lost)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], input=request(TRACE, (ONE, "")), capture_output=True, check=True
    )
    assert int(done.stdout) == 3
    assert len(spans.of_request(tmp_path, TRACE).spans) == 1
    assert sum(1 for found in spans._requests(tmp_path) if found == request(TRACE, (ONE, ""))) == 2


def segments_read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Each look at all segments adds the directory."""
    read: list[Path] = []
    known = spans.segments

    def looks(directory: Path) -> list[Path]:
        read.append(directory)
        return known(directory)

    monkeypatch.setattr(spans, "segments", looks)
    return read


def test_a_request_in_traces_without_number_is_two_looks_and_says_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpanWriter(tmp_path)
    for number in range(1, 201):
        writer.add(request(f"{number:032x}", (ONE, ""), request_id="repeated"))
    writer.close()
    read = segments_read(monkeypatch)
    found = spans.of_request(tmp_path, "repeated")
    assert (len({span.trace_id for span in found.spans}), found.left_out) == (
        spans.MOST_TRACES,
        200 - spans.MOST_TRACES,
    )
    assert len(read) == 2


def test_of_all_that_has_the_bytes_of_an_id_so_much_is_taken_apart_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpanWriter(tmp_path)
    # A text of all spans, as it may be that of an id.
    body = request(TRACE, *((hexadecimal(number), "") for number in range(1, 101)), service="order-service")
    for _ in range(20):
        writer.add(body)
    writer.close()
    monkeypatch.setattr(spans, "_MOST_PARSED_BYTES", 5 * len(body))
    parsed: list[bytes] = []
    messages = spans._messages

    def parse(one: bytes) -> Iterator[tuple[Span, str]]:
        parsed.append(one)
        return messages(one)

    monkeypatch.setattr(spans, "_messages", parse)
    assert spans.of_request(tmp_path, "order-service") == spans.Found([])
    assert len(parsed) == 5


@pytest.mark.parametrize("name", ["", "short", "a" * 65, "request.1", "request 1", "réquest-1", "../../../etc"])
async def test_what_is_no_id_is_refused_and_nothing_is_read_for_it(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    read = segments_read(monkeypatch)
    answer = await http.get("/data/trace", params={"id": name})
    assert (answer.status_code, read) == (400, [])
    assert answer.text == f"{name!r} is no id of a request: 8 to 64 letters, digits, - and _\n"


async def test_who_looks_for_a_trace_keeps_nobody_from_logs_and_traces(
    http: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Layout(tmp_path).logs.mkdir()
    begun, done = threading.Event(), threading.Event()

    def waits(*_: object) -> spans.Found:
        begun.set()
        assert done.wait(30)
        return spans.Found([])

    monkeypatch.setattr(spans, "of_request", waits)
    async with asyncio.TaskGroup() as tasks:
        looks = tasks.create_task(http.get("/data/trace", params={"id": TRACE}))
        assert await asyncio.to_thread(begun.wait, 30)
        for path in ("/data/traces", "/data/logs"):
            assert (await http.get(path)).status_code == 200
        assert not looks.done()
        done.set()
    assert looks.result().status_code == 404


def deep(span: Span) -> None:
    """A list in a list, as deep as protobuf takes it."""
    value = span.attributes.add(key="deep").value
    for _ in range(40):
        value = value.array_value.values.add()
    value.string_value = "'\""


def of_kind(number: int) -> Callable[[Span], None]:
    # An enumeration is open: 32 bits of whatever sign.
    def change(span: Span) -> None:
        span.MergeFromString(b"\x30" + varint(number % 2**64))

    return change


def varint(number: int) -> bytes:
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


@pytest.mark.parametrize(
    "change",
    [
        of_kind(99), of_kind(-1), deep,
        lambda span: span.MergeFrom(Span(start_time_unix_nano=2**64 - 1, end_time_unix_nano=2**64 - 1)),
        lambda span: span.MergeFrom(Span(start_time_unix_nano=2**64 - 1)),
        lambda span: span.status.MergeFromString(b"\x18\x63"),
        lambda span: setattr(span.attributes.add(key="nan").value, "double_value", float("nan")),
        lambda span: setattr(span.attributes.add(key="infinite").value, "double_value", float("-inf")),
        lambda span: setattr(span.attributes.add(key="integer").value, "int_value", -(2**63)),
        lambda span: setattr(span.attributes.add(key="bytes").value, "bytes_value", b"\xff\0"),
        lambda span: span.attributes.add(key="nothing"),
        lambda span: setattr(span, "name", "\x1b[2J\u202e\0"),
        lambda span: setattr(span, "parent_span_id", b"\xff" * 1000),
    ],
    ids=[
        "kind", "negative kind", "depth", "late", "ends before it begins", "status", "nan", "infinite", "integer", "bytes",
        "nothing", "name", "parent",
    ],
)  # fmt: skip
async def test_whatever_a_span_says_it_is_shown_and_so_are_those_after_it(
    http: httpx.AsyncClient, tmp_path: Path, change: Callable[[Span], None]
) -> None:
    message = ExportTraceServiceRequest.FromString(request(TRACE, (ONE, ""), (TWO, ONE)))
    now = time.time_ns()
    (scope,) = message.resource_spans[0].scope_spans
    for span in scope.spans:
        span.start_time_unix_nano, span.end_time_unix_nano = now, now + 10**6
    change(scope.spans[0])
    for body in (message.SerializeToString(), request(OTHER, (ONE, ""))):
        assert (await http.post("/v1/traces", content=body, headers=PROTOBUF)).status_code == 200
    told = await http.get("/data/trace", params={"id": TRACE})
    assert (told.status_code, len(told.json()["bars"])) == (200, 2)
    assert len(told.content) < 10_000
    assert (await http.get("/data/trace", params={"id": OTHER})).status_code == 200
    recent = await http.get("/data/traces")
    assert recent.status_code == 200
    assert {one["trace_id"] for one in recent.json()} <= {TRACE}
    found = spans.of_request(Layout(tmp_path).spans, TRACE)
    assert len(list(tree.lines(found.spans))) == 3
    json.dumps([span.attributes for span in found.spans], allow_nan=False)


async def test_a_span_without_an_id_is_none(http: httpx.AsyncClient, tmp_path: Path) -> None:
    for trace_id, span_id in (("", ONE), (TRACE, ""), ("ff", ONE), (TRACE * 100, ONE), (TRACE, ONE * 2)):
        await http.post("/v1/traces", content=request(trace_id, (span_id, "")), headers=PROTOBUF)
    await http.post("/v1/traces", content=request(TRACE, (ONE, "")), headers=PROTOBUF)
    assert [span.span_id for span in spans.of_request(Layout(tmp_path).spans, TRACE).spans] == [ONE]


def test_a_clock_that_is_ahead_has_no_trace_listed_for_ever(tmp_path: Path) -> None:
    writer, found = SpanWriter(tmp_path), Traces(tmp_path)
    message = ExportTraceServiceRequest.FromString(request(TRACE, (ONE, "")))
    message.resource_spans[0].scope_spans[0].spans[0].end_time_unix_nano = time.time_ns() + 2 * 3600 * 10**9
    writer.add(message.SerializeToString())
    writer.close()
    assert found.recent() == []
