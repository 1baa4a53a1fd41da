"""What any library's instrumentation sees: `opentelemetry-api`, whose tracer provider is ours.

A span that a library begins is a part of the unit of work that it is used in, and what is done within it is a part of it.
In a request that is not sampled it is none: whether we keep our own spans in the end is no concern of a library's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from opentelemetry.util._decorator import _agnosticcontextmanager
from opentelemetry.util.types import Attributes, AttributeValue

from chassis.tracing import spans
from chassis.tracing.spans import Description, Span, Value

_KINDS = {
    SpanKind.INTERNAL: spans.INTERNAL,
    SpanKind.SERVER: spans.SERVER,
    SpanKind.CLIENT: spans.CLIENT,
    SpanKind.PRODUCER: spans.PRODUCER,
    SpanKind.CONSUMER: spans.CONSUMER,
}
# Attributes that one span may have, as OpenTelemetry's SDKs have it.
_MOST_ATTRIBUTES = 128


def install() -> None:
    """Make ours the process's provider; the first one stays."""
    if not isinstance(api.get_tracer_provider(), Provider):
        api.set_tracer_provider(Provider())


def context_of(span: Span) -> SpanContext:
    """A span of ours, as the API names it."""
    flags = TraceFlags(TraceFlags.SAMPLED if span.trace.is_sampled else TraceFlags.DEFAULT)
    return SpanContext(int(span.trace.trace_id, 16), span.identify(), is_remote=False, trace_flags=flags)


class Provider(api.TracerProvider):
    """Ours."""

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Tracer:
        """See the API."""
        return Tracer()


class Tracer(api.Tracer):
    """Begins spans within ours."""

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[api.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> api.Span:
        """See the API. Links are not kept; none of our own work has any yet."""
        parent = _parent(context)
        if parent is None:
            return api.INVALID_SPAN
        if not parent.trace.is_sampled:
            return NonRecordingSpan(context_of(parent))
        began = time.perf_counter() if start_time is None else _on_our_clock(start_time)
        span = Span()
        span.began = began
        span.record(parent.trace, parent, Description(name, _KINDS[kind]))
        found = LibrarySpan(span)
        found.set_attributes(attributes or {})
        return found

    @_agnosticcontextmanager
    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[api.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[api.Span]:
        """See the API. Our own units of work within the block are parts of it."""
        span = self.start_span(name, context, kind, attributes, links, start_time)
        outer = spans.innermost()
        if isinstance(span, LibrarySpan):
            spans.become_innermost(span.span)
        try:
            with api.use_span(span, end_on_exit, record_exception, set_status_on_exception):
                yield span
        finally:
            spans.become_innermost(outer)


class LibrarySpan(api.Span):
    """A span of ours, as a library handles it."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self._outcome = "OK"
        self._error: BaseException | None = None

    def get_span_context(self) -> SpanContext:
        """See the API."""
        return context_of(self.span)

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """See the API."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """See the API."""
        known = self.span.attributes
        if known is None:
            known = self.span.attributes = {}
        if key in known or len(known) < _MOST_ATTRIBUTES:
            known[key] = _scalar(value)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """See the API; events are log lines here."""

    def update_name(self, name: str) -> None:
        """See the API."""
        self.span.description = Description(name, self.span.description.kind)

    def is_recording(self) -> bool:
        """See the API."""
        return True

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """See the API; a description may hold anybody's data, and is not kept."""
        code = status.status_code if isinstance(status, Status) else status
        if code is StatusCode.ERROR and self._outcome == "OK":
            self._outcome = "_OTHER"
        elif code is StatusCode.OK:
            self._outcome = "OK"

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """See the API; its type is kept, its message is not."""
        self._outcome, self._error = type(exception).__name__, exception

    def end(self, end_time: int | None = None) -> None:
        """See the API."""
        ended = time.perf_counter() if end_time is None else _on_our_clock(end_time)
        self.span.end(ended, self._outcome, self._error)


def _parent(context: Context | None) -> Span | None:
    named = api.get_current_span(context) if context is not None else None
    return named.span if isinstance(named, LibrarySpan) else spans.innermost()


def _on_our_clock(nanoseconds: int) -> float:
    return nanoseconds / 1e9 - time.time() + time.perf_counter()


def _scalar(value: AttributeValue) -> Value:
    return value if isinstance(value, str | bool | int | float) else str(value)
