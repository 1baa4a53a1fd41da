"""TRACER=sdk: what is kept is told to OpenTelemetry's SDK, whose processors and exporters then do the rest.

For who needs one of those. Ours costs a tenth (docs/observability.md).
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from chassis.tracing.conventions import is_error, of_outcome
from chassis.tracing.otlp import SCHEMA_URL
from chassis.tracing.spans import Span, Trace
from chassis.version import __version__

_PAUSE_MILLISECONDS = 500
_KINDS = {1: SpanKind.INTERNAL, 2: SpanKind.SERVER, 3: SpanKind.CLIENT, 4: SpanKind.PRODUCER, 5: SpanKind.CONSUMER}


class SdkSink:
    """Tells the SDK of each span, with the ids and times that it had.

    Args:
        endpoint: an OTLP receiver's base URL.
        resource: attributes of the process.
        compress: with gzip.
    """

    def __init__(self, endpoint: str, resource: Mapping[str, str], *, compress: bool) -> None:
        exporter = OTLPSpanExporter(
            endpoint=endpoint.rstrip("/") + "/v1/traces",
            compression=Compression.Gzip if compress else Compression.NoCompression,
        )
        self._ids = _GivenIds()
        self._provider = TracerProvider(
            id_generator=self._ids, resource=Resource.create(dict(resource)), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_PAUSE_MILLISECONDS))
        self._tracer = self._provider.get_tracer("backend-chassis", __version__, SCHEMA_URL)
        self._told = 0

    def start(self) -> None:
        """The SDK has begun when it was made."""

    def stop(self) -> None:
        """Send what waits, and end."""
        self._provider.shutdown()

    def take(self, trace: Trace) -> None:
        """Tell the SDK."""
        offset = time.time() - time.perf_counter()
        self._told += len(trace.spans)
        for span in trace.spans:
            self._tell(trace, span, offset)
        trace.forget()

    def _tell(self, trace: Trace, span: Span, offset: float) -> None:
        self._ids.next = span.identify()
        parent_id = trace.parent_id if span.parent is None else span.parent.identify()
        attributes = {**span.description.attributes, **dict(of_outcome(span)), **(span.attributes or {})}
        if span.parent is None:
            kind = "http.request.header" if span.description.rules == "http" else "rpc.request.metadata"
            attributes[f"{kind}.x-request-id"] = trace.request_id
        parent = SpanContext(
            int(trace.trace_id, 16), parent_id or 1, span.parent is None, TraceFlags(TraceFlags.SAMPLED)
        )
        told = self._tracer.start_span(
            span.description.name,
            api.set_span_in_context(NonRecordingSpan(parent)),
            _KINDS[span.description.kind],
            attributes,
            [api.Link(_context(span.link))] if span.link else None,
            start_time=int((span.began + offset) * 1e9),
        )
        if is_error(span):
            told.set_status(Status(StatusCode.ERROR))
        told.end(int((span.ended + offset) * 1e9))

    def counts(self) -> dict[str, int]:
        """How many the SDK was told of; what became of them, it counts itself."""
        return {"told": self._told}


def _context(traceparent: str) -> SpanContext:
    return SpanContext(int(traceparent[3:35], 16), int(traceparent[36:52], 16), is_remote=True)


class _GivenIds(IdGenerator):
    """The ids that others have been told already."""

    def __init__(self) -> None:
        self.next = 1

    def generate_span_id(self) -> int:
        """The id of the span that is told of."""
        return self.next

    def generate_trace_id(self) -> int:
        """Never asked: every span has a parent that says its trace."""
        return 1
