"""The spans of the last hour, in files: requests of OTLP as they came, one behind the other.

They are written thousands of times for each time that one is read. So nothing is taken apart when it is written, and whoever
reads looks through all of it, which is a tenth of a second for the most that there can be. A segment is a file; the oldest
go when there are too many, or when their hour is over.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
# Before each request, its length.
_LENGTH = struct.Struct("<I")
# Where spans say whose they are: ours, of a header and of a call's metadata, and Envoy's.
_REQUEST_IDS = ("http.request.header.x-request-id", "rpc.request.metadata.x-request-id", "guid:x-request-id")

Value = str | bool | int | float | list[str]


@dataclass(frozen=True, slots=True)
class Span:
    """One span, as it is read.

    Attributes:
        trace_id, span_id, parent_id: in hexadecimal; no parent is an empty string.
        service, process: who made it: order, order-2.
        kind: internal, server, client, producer or consumer.
        began, ended: nanoseconds since 1970.
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


def of_request(directory: Path, request_id: str) -> list[Span]:
    """The spans of the traces that a request is in, or of one trace by its id; by when they began.

    All of them, but of more than any request makes, `MOST_SPANS`.

    Args:
        directory: of the segments.
        request_id: as an answer or a log line has it, or a trace's id in hexadecimal.
    """
    traces = {span.trace_id for span in _spans_with(directory, request_id.encode()) if span.request_id == request_id}
    if len(request_id) == 32 and not traces:
        traces.add(request_id)
    found: dict[tuple[str, str], Span] = {}
    for trace_id in traces:
        try:
            needle = bytes.fromhex(trace_id)
        except ValueError:
            continue
        for span in _spans_with(directory, needle):
            if span.trace_id == trace_id and len(found) < MOST_SPANS:
                found[trace_id, span.span_id] = span
    return sorted(found.values(), key=lambda span: (span.began, -span.ended))


def _spans_with(directory: Path, needle: bytes) -> Iterator[Span]:
    """The spans of each request that has these bytes in it."""
    for request in _requests(directory):
        if needle in request:
            yield from read(ExportTraceServiceRequest.FromString(request))


def _requests(directory: Path) -> Iterator[bytes]:
    for path in segments(directory):
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


def read(request: ExportTraceServiceRequest) -> Iterator[Span]:
    """Its spans."""
    for resource_spans in request.resource_spans:
        service = _service(resource_spans.resource)
        for scope in resource_spans.scope_spans:
            for message in scope.spans:
                yield _span(message, service)


def _service(resource: Resource) -> str:
    return next((a.value.string_value for a in resource.attributes if a.key == "service.name"), "?")


def _span(message: Message, service: str) -> Span:
    return Span(
        trace_id=message.trace_id.hex(),
        span_id=message.span_id.hex(),
        parent_id=message.parent_span_id.hex(),
        service=service,
        name=message.name,
        kind=Message.SpanKind.Name(message.kind).removeprefix("SPAN_KIND_").lower(),
        began=message.start_time_unix_nano,
        ended=message.end_time_unix_nano,
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
            return value.double_value
        case "array_value":
            return [str(_value(one)) for one in value.array_value.values]
        case _:
            return str(value).strip()
