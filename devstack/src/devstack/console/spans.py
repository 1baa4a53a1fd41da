"""The spans of the last hour, in files: requests of OTLP as they came, one behind the other.

They are written thousands of times for each time that one is read. So nothing is taken apart when it is written, and whoever
reads looks through the bytes of all of it, and takes apart what has the bytes that it looks for, up to a bound. A segment is
a file; the oldest go when there are too many, or when their hour is over.

Whoever is on this machine may send spans: what is read here is taken for nothing but bytes that are protobuf.
"""

from __future__ import annotations

import errno
import math
import os
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chassis.context import REQUEST_ID
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
from opentelemetry.proto.trace.v1.trace_pb2 import Status

# Of all segments together: some 300,000 spans.
_SEGMENTS = 16
_SEGMENT_BYTES = 8 * 1024 * 1024
_SEGMENT_SECONDS = 300.0
KEPT_SECONDS = 3600.0
MOST_SPANS = 20_000
# Of one request: each is looked for in all bytes. A client's repetitions under one id are traces of their own.
MOST_TRACES = 8
# What is taken apart for one look, of the newest segments first: whoever sends spans chooses how many have an id's bytes.
_MOST_PARSED_BYTES = 8 * 1024 * 1024
# Before each request, its length.
_LENGTH = struct.Struct("<I")
_TRACE_ID_BYTES, _SPAN_ID_BYTES = 16, 8
# An enumeration of protobuf is open: there may be numbers that have no name here.
_KINDS = {value.number: value.name.removeprefix("SPAN_KIND_").lower() for value in Message.SpanKind.DESCRIPTOR.values}
# Where spans say whose they are: ours, of a header and of a call's metadata, and Envoy's.
_REQUEST_IDS = ("http.request.header.x-request-id", "rpc.request.metadata.x-request-id", "guid:x-request-id")

Value = str | bool | int | float | list[str]


@dataclass(frozen=True, slots=True)
class Span:
    """One span, as it is read.

    Attributes:
        trace_id, span_id, parent_id: in hexadecimal; no parent is an empty string.
        service, process: who made it: order, order-2.
        kind: internal, server, client, producer or consumer; unspecified when it is none that is known.
        began, ended: nanoseconds since 1970; no span ends before it began.
        is_error: whether it says of itself that it failed.
    """

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    kind: str
    began: int
    ended: int
    is_error: bool
    attributes: dict[str, Value]

    @property
    def request_id(self) -> str:
        """The request that it is a part of, where it says so; else an empty string."""
        for name in _REQUEST_IDS:
            if (found := self.attributes.get(name)) is not None:
                return found[0] if isinstance(found, list) and found else str(found)
        return ""


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of one request.

    Attributes:
        spans: of at most `MOST_TRACES` traces, by when they began.
        left_out: how many further traces the request is in, of those that were seen.
    """

    spans: Sequence[Span]
    left_out: int = 0


class SpanWriter:
    """Appends to the newest segment of a directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._began = 0.0
        self._open()

    def add(self, request: bytes) -> None:
        """Keep a request, which somebody has found to be one.

        Raises:
            OSError: the disk is full.
        """
        now = time.time()
        if self._file.tell() > _SEGMENT_BYTES or now - self._began > _SEGMENT_SECONDS:
            full = self._file
            # First, for with no room for one more file the old one stays.
            self._open()
            full.close()
        begin, entry = self._file.seek(0, os.SEEK_END), _LENGTH.pack(len(request)) + request
        if self._file.write(entry) != len(entry):
            # Half of it is none, and would take what follows with it.
            self._file.truncate(begin)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Nothing is added any more."""
        self._file.close()

    def remove_old(self) -> None:
        """Remove the segments that are too many or too old."""
        known = segments(self._directory)
        for path in known[:-_SEGMENTS]:
            path.unlink(missing_ok=True)
        for path in known[-_SEGMENTS:-1]:
            if path.stat().st_mtime < time.time() - KEPT_SECONDS:
                path.unlink(missing_ok=True)

    def _open(self) -> None:
        # Named by the time, so that names are in order.
        self._file = (self._directory / f"{time.time_ns():020d}.otlp").open("ab", buffering=0)
        self._began = time.time()
        self.remove_old()


def of_request(directory: Path, request_id: str) -> Found:
    """The spans of the traces that a request is in, or of one trace by its id.

    The newest of them: of more than any request makes, `MOST_SPANS` of `MOST_TRACES`. Two looks through the segments, however
    many there are.

    Args:
        directory: of the segments.
        request_id: as an answer or a log line has it, or a trace's id in hexadecimal.

    Raises:
        ValueError: no request and no trace has such an id.
    """
    if not REQUEST_ID.fullmatch(request_id):
        raise ValueError(f"{request_id!r} is no id of a request: 8 to 64 letters, digits, - and _")
    # As a text stands in protobuf: the field, the length, and what it says. Few others have these bytes.
    needle = b"\n" + bytes([len(request_id)]) + request_id.encode()
    # A dict, because a set has no order.
    traces = {
        message.trace_id: None
        for message, _ in _messages_with(directory, [needle])
        if any(a.key in _REQUEST_IDS for a in message.attributes) and _span(message, "").request_id == request_id
    }
    if len(request_id) == 2 * _TRACE_ID_BYTES and not traces:
        traces = {trace_id: None for trace_id in [_bytes(request_id)] if trace_id}
    wanted = list(traces)[:MOST_TRACES]
    found: dict[tuple[str, str], Span] = {}
    for message, service in _messages_with(directory, wanted):
        if message.trace_id in wanted:
            span = _span(message, service)
            found.setdefault((span.trace_id, span.span_id), span)
            if len(found) == MOST_SPANS:
                break
    by_begin = sorted(found.values(), key=lambda span: (span.began, -span.ended))
    return Found(by_begin, len(traces) - len(wanted))


def _bytes(hexadecimal: str) -> bytes:
    """The id that is written so; empty when none is."""
    try:
        return bytes.fromhex(hexadecimal)
    except ValueError:
        return b""


def _messages_with(directory: Path, needles: Sequence[bytes]) -> Iterator[tuple[Message, str]]:
    """The spans of each request that has one of these in it, and whose they are; of as many bytes as are taken apart."""
    room = _MOST_PARSED_BYTES
    for request in _requests(directory):
        if any(needle in request for needle in needles):
            room -= len(request)
            if room < 0:
                return
            yield from _messages(request)


def _requests(directory: Path) -> Iterator[bytes]:
    """All that are kept, a segment after the other, the newest segment first."""
    for path in reversed(segments(directory)):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            # Its hour ended just now.
            continue
        position = 0
        while position + _LENGTH.size <= len(content):
            (length,) = _LENGTH.unpack_from(content, position)
            position += _LENGTH.size
            # The last one may be being written, or have been when its writer was killed.
            if position + length <= len(content):
                yield content[position : position + length]
            position += length


def requests_between(path: Path, begin: int, most_bytes: int) -> tuple[list[bytes], int]:
    """The requests of one segment from a place on, and where the last whole one ends; of more than that, the last ones.

    Args:
        path: of the segment.
        begin: where a request begins.
        most_bytes: of what is told; all is read over.

    Raises:
        FileNotFoundError: its hour has ended.
    """
    found: list[bytes] = []
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        position = begin
        file.seek(begin)
        while len(head := file.read(_LENGTH.size)) == _LENGTH.size:
            (length,) = _LENGTH.unpack(head)
            end = position + _LENGTH.size + length
            if end > size:
                break
            # So far from the end that it would be among those that are not told.
            if size - position <= most_bytes:
                found.append(file.read(length))
            else:
                file.seek(end)
            position = end
    return found, position


def segments(directory: Path) -> list[Path]:
    """The files, the oldest first."""
    return sorted(directory.glob("*.otlp"))


def read(request: bytes) -> Iterator[Span]:
    """Its spans."""
    return (_span(message, service) for message, service in _messages(request))


def _messages(request: bytes) -> Iterator[tuple[Message, str]]:
    """The spans of a request and whose they are; without those whose ids are none (OpenTelemetry, `trace.proto`)."""
    try:
        message = ExportTraceServiceRequest.FromString(request)
    except DecodeError:
        # It was one when it came: the file has been damaged.
        return
    for resource_spans in message.resource_spans:
        service = _service(resource_spans.resource)
        for scope in resource_spans.scope_spans:
            for span in scope.spans:
                if len(span.trace_id) == _TRACE_ID_BYTES and len(span.span_id) == _SPAN_ID_BYTES:
                    yield span, service


def _service(resource: Resource) -> str:
    return next((a.value.string_value for a in resource.attributes if a.key == "service.name"), "?")


def _span(message: Message, service: str) -> Span:
    return Span(
        trace_id=message.trace_id.hex(),
        span_id=message.span_id.hex(),
        parent_id=message.parent_span_id.hex(),
        service=service,
        name=message.name,
        kind=_KINDS.get(message.kind, "unspecified"),
        began=message.start_time_unix_nano,
        ended=max(message.start_time_unix_nano, message.end_time_unix_nano),
        is_error=message.status.code == Status.STATUS_CODE_ERROR,
        attributes={attribute.key: _value(attribute.value) for attribute in message.attributes},
    )


def _value(value: AnyValue) -> Value:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            # JSON has no word for the others.
            return value.double_value if math.isfinite(value.double_value) else str(value.double_value)
        case "array_value":
            return [_element(one) for one in value.array_value.values]
        case _:
            return str(value).strip()


def _element(value: AnyValue) -> str:
    # What is itself made of others, protobuf's own text has: a text of a text of a text would be doubled each time.
    return str(value).strip() if value.WhichOneof("value") == "array_value" else str(_value(value))
