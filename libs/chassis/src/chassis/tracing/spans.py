"""What is recorded of a request in one process: a span for each unit of work, kept in a list until the request ends.

Every request is recorded, sampled or not, because whether it fails is known only at its end. So recording has to cost next
to nothing: the object that `observe` is anyhow, the clock that it reads anyhow, no text, and ids only where one leaves the
process. What a span is called and said to be is made of this by `otlp`, for those that are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import getrandbits
from typing import Protocol

# The numbers of opentelemetry/proto/trace/v1/trace.proto, SpanKind.
INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4, 5
# Spans of one request in one process; what a request does more often than this is counted and not recorded.
MOST_SPANS = 256
# The last digit of a traceparent whose flags say "sampled" (W3C Trace Context, section 3.2.2.5.1).
SAMPLED = frozenset("13579bdf")

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
    """One request in one process.

    Args:
        traceparent: as it came, well-formed (`context.accept_traceparent`); a request without one begins a trace.
        request_id: as every answer and log line has it.
    """

    __slots__ = ("_traceparent", "is_over", "is_sampled", "lost", "path", "request_id", "spans", "status")

    def __init__(self, traceparent: str, request_id: str) -> None:
        self._traceparent = traceparent
        self.is_sampled = traceparent[-1:] in SAMPLED
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
    def traceparent(self) -> str:
        """As it came; of a trace that begins here, with no span as its parent."""
        if not self._traceparent:
            self._traceparent = f"00-{getrandbits(128) or 1:032x}-{0:016x}-00"
        return self._traceparent

    @property
    def trace_id(self) -> str:
        """In hexadecimal."""
        return self.traceparent[3:35]

    @property
    def parent_id(self) -> int:
        """The span of the caller; 0 when there is none."""
        return int(self.traceparent[36:52], 16)


class Span:
    """One unit of work that is recorded: `observe` is one, and so is a library's (`library`)."""

    __slots__ = ("attributes", "began", "description", "ended", "id", "link", "outcome", "parent", "sqlstate", "trace")

    trace: Trace
    # What it is a part of; of a request's own span, nothing.
    parent: Span | None
    description: Description
    # On the clock of `perf_counter`, as `ended`, which it has from its end on, as its outcome.
    began: float
    ended: float
    outcome: str

    def record(self, trace: Trace, parent: Span | None, description: Description) -> None:
        """It is a part of this trace, from its beginning on."""
        self.trace = trace
        self.parent = parent
        self.description = description
        self.id = 0
        self.sqlstate = ""
        # What is known of this one alone.
        self.attributes: dict[str, Value] | None = None
        # The traceparent of a span that caused this one, in its trace or in another.
        self.link = ""

    def identify(self) -> int:
        """Its id, which it has from now on."""
        if not self.id:
            self.id = getrandbits(64) or 1
        return self.id

    def traceparent(self) -> str:
        """What a call within this span tells its callee (W3C Trace Context, section 3.2)."""
        trace = self.trace
        return f"00{trace.traceparent[2:36]}{self.identify():016x}{'-01' if trace.is_sampled else '-00'}"

    def end(self, ended: float, outcome: str, error: BaseException | None = None) -> None:
        """It has ended.

        Args:
            ended: when.
            outcome: "OK", a reason of the error table, or the name of an exception.
            error: what was raised; of it, only a database's error code is kept, for a message may hold anybody's data.
        """
        self.ended = ended
        self.outcome = outcome
        if error is not None:
            self.sqlstate = getattr(error, "sqlstate", None) or ""
        trace = self.trace
        if trace.is_over:
            # A task that the request has left behind.
            return
        if self.parent is None:
            trace.is_over = True
            trace.spans.append(self)
            if recorder is None or not recorder.ended(trace, self):
                trace.forget()
        elif len(trace.spans) < MOST_SPANS:
            trace.spans.append(self)
        else:
            trace.lost += 1


class Recorder(Protocol):
    """Is given what has ended."""

    def ended(self, trace: Trace, root: Span) -> bool:
        """A request has ended in this process; `root` is its own span. Whether somebody keeps it."""
        ...


# Of the process, between `process.Tracing`'s beginning and end; without one, nothing is recorded.
recorder: Recorder | None = None
_innermost: ContextVar[Span | None] = ContextVar("innermost_span", default=None)


def innermost() -> Span | None:
    """The unit of work that is being done: the smallest one that others may be a part of."""
    return _innermost.get()


def become_innermost(span: Span | None) -> None:
    """What begins from now on is a part of this one.

    It is set back by this, too, and not by a token: a stream's end may run in another context than its beginning did.
    """
    _innermost.set(span)
