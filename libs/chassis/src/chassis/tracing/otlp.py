"""Spans as OTLP has them: opentelemetry/proto/collector/trace/v1/trace_service.proto, ExportTraceServiceRequest.

Written by hand, for the generated classes take five times as long (ADR 0032); a test reads the result with those. Only what
differs from span to span is encoded each time: a description's part of the message is made once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from struct import Struct

from chassis.tracing.conventions import is_error, of_outcome, of_success
from chassis.tracing.spans import Description, Span, Trace, Value
from chassis.version import __version__
from chassis.wire_format import field, varint

# The conventions that the names are of (`opentelemetry-semantic-conventions`).
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
_SCOPE = "backend-chassis"
# Of fields whose number is below 16, the tag is written out (chassis/wire_format.py says how it is made).
_double, _flags = Struct("<d"), Struct("<2sI")
# A span's id and its parent's, and when it began and ended: each with its tag, and ids with their length, before it.
_id, _ids, _times = Struct(">2sQ"), Struct(">2sQ2sQ"), Struct("<BQBQ")


def request(traces: Iterable[Trace], resource: Mapping[str, str]) -> bytes:
    """One ExportTraceServiceRequest.

    Args:
        traces: what this process did for some requests.
        resource: attributes of the process.
    """
    scope = field(1, field(1, _SCOPE.encode()) + field(2, __version__.encode()))
    spans = b"".join([field(2, encoded) for trace in traces for encoded in _spans(trace)])
    schema = field(3, SCHEMA_URL.encode())
    return field(1, _resource(tuple(resource.items())) + field(2, scope + spans + schema) + schema)


@lru_cache(maxsize=4)
def _resource(attributes: tuple[tuple[str, str], ...]) -> bytes:
    return field(1, b"".join([_attribute(1, key, value) for key, value in attributes]))


def _spans(trace: Trace) -> Iterable[bytes]:
    trace_id = field(1, bytes.fromhex(trace.trace_id))
    # From the clock that spans are timed by to the time of day, which is asked for once.
    offset = time.time() - time.perf_counter()
    for span in trace.spans:
        parent = span.parent
        # Of a call, a statement and a command that went well there is no more to say than of all of them.
        is_ok = span.outcome == "OK" and span.description.rules != "http"
        parent_id = trace.parent_id if parent is None else parent.identify()
        parts = [
            trace_id,
            _ids.pack(b"\x12\x08", span.identify(), b"\x22\x08", parent_id)
            if parent_id
            else _id.pack(b"\x12\x08", span.identify()),
            _of_all(span.description, is_ok),
            _times.pack(0x39, int((span.began + offset) * 1e9), 0x41, int((span.ended + offset) * 1e9)),
        ]
        if not is_ok:
            parts += [_attribute(9, key, value) for key, value in of_outcome(span)]
            if is_error(span):
                # Status.code
                parts.append(b"\x7a\x02\x18\x02")
        if span.attributes:
            parts += [_attribute(9, key, value) for key, value in span.attributes.items()]
        if span.link:
            parts.append(_link(span.link))
        if parent is None:
            parts += _of_request(span)
        # Flags: those of the trace, and that we know whether the parent is another process's.
        parts.append(_flags.pack(b"\x85\x01", trace.is_sampled | 0x100 | (0x200 if parent is None else 0)))
        yield b"".join(parts)


def _of_request(span: Span) -> Iterable[bytes]:
    trace = span.trace
    # By this a span is found from an error answer; the two names are those of a header and of a call's metadata.
    name = (
        "http.request.header.x-request-id" if span.description.rules == "http" else "rpc.request.metadata.x-request-id"
    )
    yield _attribute(9, name, [trace.request_id])
    if trace.lost:
        yield _attribute(9, "backend.spans_lost", trace.lost)


def _link(traceparent: str) -> bytes:
    """Span.Link."""
    return field(13, field(1, bytes.fromhex(traceparent[3:35])) + field(2, bytes.fromhex(traceparent[36:52])))


@lru_cache(maxsize=1024)
def _of_all(description: Description, is_ok: bool) -> bytes:
    """What is the same in all spans of a description; of those that went well, how they ended, too."""
    said = [*description.attributes.items(), *(of_success(description) if is_ok else ())]
    attributes = [_attribute(9, key, value) for key, value in said]
    return b"".join([field(5, description.name.encode()), b"\x30", varint(description.kind), *attributes])


def _attribute(number: int, key: str, value: Value | Sequence[str]) -> bytes:
    """A KeyValue (common.proto)."""
    return field(number, _key(key) + field(2, _any(value)))


@lru_cache(maxsize=1024)
def _key(key: str) -> bytes:
    return field(1, key.encode())


def _any(value: Value | Sequence[str]) -> bytes:
    # A bool is an int, too.
    if isinstance(value, str):
        return field(1, value.encode(errors="replace"))
    if isinstance(value, bool):
        return b"\x10" + varint(int(value))
    if isinstance(value, int):
        # Of a negative one, its two's complement of 64 bits.
        return b"\x18" + varint(value & 0xFFFFFFFFFFFFFFFF)
    if isinstance(value, float):
        return b"\x21" + _double.pack(value)
    return field(5, b"".join([field(1, _any(one)) for one in value]))
