"""What is recorded of a request in one process: a span for each unit of work, kept in a list until the request ends.

Every request is recorded, sampled or not, because whether it fails is known only at its end. So recording has to cost next
to nothing: an object with a few slots for each unit, no clock but the one that `observe` reads anyhow, no text, and ids only
where one leaves the process. What a span is called and said to be is made of this by `otlp`, for those that are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import getrandbits
from time import perf_counter
from typing import Protocol

# The numbers of opentelemetry/proto/trace/v1/trace.proto, SpanKind.
INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4, 5
# Spans of one request in one process; what a request does more often than this is counted and not recorded.
MOST_SPANS = 256

Value = str | bool | int | float


@dataclass(frozen=True, slots=True, eq=False)
class Description:
    """What all spans of one kind of work have in common; made once (`conventions`)."""

    name: str
    kind: int = INTERNAL
    attributes: Mapping[str, Value] = field(default_factory=dict)
    # Whose rules say which outcome is an error, and what it is called: "http", "rpc", "call", or any other.
    rules: str = ""


class Trace:
    """One request in one process."""

    __slots__ = ("is_over", "is_sampled", "lost", "path", "request_id", "spans", "status", "traceparent")

    def __init__(self, traceparent: str, request_id: str) -> None:
        # As it came, well-formed (`context.accept_traceparent`); a request without one begins a trace.
        self.traceparent = traceparent or f"00-{getrandbits(128) or 1:032x}-{0:016x}-00"
        # Bit 0 of the flags (W3C Trace Context, section 3.2.2.5.1).
        self.is_sampled = self.traceparent[54] in "13579bdf"
        self.request_id = request_id
        # In the order in which they ended; the request's own is the last.
        self.spans: list[Span] = []
        # How many more there would have been.
        self.lost = 0
        self.is_over = False
        # Of an HTTP request: its path, and the status of its answer.
        self.path = ""
        self.status = 0

    def forget(self) -> None:
        """Let go of the spans: they name their trace and it names them, and the garbage collector would have to see that.

        It would come after every few hundred requests, which costs more than all that is recorded.
        """
        self.spans.clear()

    @property
    def trace_id(self) -> str:
        """In hexadecimal."""
        return self.traceparent[3:35]

    @property
    def parent_id(self) -> int:
        """The span of the caller; 0 when there is none."""
        return int(self.traceparent[36:52], 16)


class Span:
    """One unit of work."""

    __slots__ = ("attributes", "began", "description", "ended", "id", "link", "outcome", "parent", "sqlstate", "trace")

    # Which it has from its end on.
    ended: float
    outcome: str

    def __init__(self, trace: Trace, parent: Span | None, description: Description, began: float) -> None:
        self.trace = trace
        self.parent = parent
        self.description = description
        self.id = 0
        # What is known of this one alone.
        self.attributes: dict[str, Value] | None = None
        self.sqlstate = ""
        # The traceparent of a span that caused this one, in its trace or in another.
        self.link = ""
        # On the clock of `perf_counter`, as `ended`.
        self.began = began

    def identify(self) -> int:
        """Its id, which it has from now on."""
        if not self.id:
            self.id = getrandbits(64) or 1
        return self.id

    def traceparent(self) -> str:
        """What a call within this span tells its callee (W3C Trace Context, section 3.2)."""
        return f"00-{self.trace.trace_id}-{self.identify():016x}-{'01' if self.trace.is_sampled else '00'}"


class Recorder(Protocol):
    """Is given what has ended."""

    def ended(self, trace: Trace, root: Span) -> bool:
        """A request has ended in this process; `root` is its own span. Whether somebody keeps it."""
        ...


# Of the process, between `process.Tracing`'s beginning and end; without one, nothing is recorded.
recorder: Recorder | None = None
_innermost: ContextVar[Span | None] = ContextVar("innermost_span", default=None)


def innermost() -> Span | None:
    """The unit of work that is being done, the smallest one."""
    return _innermost.get()


def become_innermost(span: Span | None) -> None:
    """What begins from now on is a part of this one."""
    _innermost.set(span)


def begin_request(description: Description, traceparent: str, request_id: str, began: float) -> Span | None:
    """Begin to record a request; nothing when nobody listens."""
    if recorder is None:
        return None
    span = Span(Trace(traceparent, request_id), None, description, began)
    _innermost.set(span)
    return span


def begin(description: Description, began: float) -> Span | None:
    """Begin a part of the request that is recorded; nothing outside of one."""
    parent = _innermost.get()
    if parent is None:
        return None
    span = Span(parent.trace, parent, description, began)
    _innermost.set(span)
    return span


def end(span: Span, outcome: str, error: BaseException | None = None) -> None:
    """End a span.

    Args:
        span: the one that was begun.
        outcome: "OK", a reason of the error table, or the name of an exception.
        error: what was raised; of it, only a database's error code is kept, for a message may hold anybody's data.
    """
    span.ended = perf_counter()
    span.outcome = outcome
    if error is not None:
        span.sqlstate = getattr(error, "sqlstate", None) or ""
    # Not `reset`: a stream's end may run in another context than its beginning did.
    _innermost.set(span.parent)
    trace = span.trace
    if trace.is_over:
        # A task that the request has left behind.
        return
    if span.parent is None:
        trace.is_over = True
        trace.spans.append(span)
        if recorder is None or not recorder.ended(trace, span):
            trace.forget()
    elif len(trace.spans) < MOST_SPANS:
        trace.spans.append(span)
    else:
        trace.lost += 1
