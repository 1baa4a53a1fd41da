"""One wrapper around every unit of work: its context, its time, its outcome, what its errors become, its log line.

A unit of work is an operation that a client asked for, an RPC, a call of another service, a use of the database or of
Valkey, a run of a worker:

    _GET = Work("valkey", "get")

    with observe(_GET):
        ...

Whoever wants to hear of all of them is told in one place, `_end`: the metrics, the trace that the unit is a part of, and
the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Token
from time import perf_counter
from types import TracebackType
from typing import Self

import structlog

from chassis import context, logging
from chassis.context import RequestContext
from chassis.errors import ServiceError, as_service_error
from chassis.metrics.work import Kind, meter
from chassis.presence import CallerGoneError
from chassis.tracing import spans
from chassis.tracing.spans import CLIENT, Description, Span, Trace, become_innermost

# What an error of the work is to whoever asked for it; None leaves it as it is.
Translation = Callable[[Exception, str], ServiceError | None]

# Somebody waits for the answer: that it failed, and why, is worth a line whatever the level of the others.
_ANSWERED = ("http", "rpc")
_log = structlog.get_logger("work")


def served(error: Exception, operation: str) -> ServiceError | None:
    """What a caller is told of an error: all that is not known becomes INTERNAL, and is logged."""
    if isinstance(error, CallerGoneError):
        return None
    known = as_service_error(error)
    if known is None and isinstance(error, TimeoutError):
        known = ServiceError("DEADLINE_EXCEEDED")
    if known is None:
        _log.exception("unexpected error", operation=operation)
        known = ServiceError("INTERNAL")
    return known


def unchanged(_error: Exception, _name: str) -> ServiceError | None:
    """Errors stay what they are."""
    return None


class Work:
    """A kind of work, made once.

    Args:
        kind: what it is.
        name: which of its kind: an operation's id, a method's name, a command.
        translate: what its errors become.
        span: what its spans are (`tracing.conventions`); without, it has none.
    """

    __slots__ = ("kind", "meter", "name", "span", "translate")

    def __init__(
        self, kind: Kind, name: str, translate: Translation = unchanged, span: Description | None = None
    ) -> None:
        self.kind = kind
        self.meter = meter(kind, name)
        self.name = name
        self.translate = translate
        self.span = span


class observe(Span):  # noqa: N801 - used like a function
    """Around one unit of work; it is itself the span of it, where one is recorded.

    Args:
        work: what it is.
        current: the context to do it in, when it is not the one of the request that it is a part of.

    Raises:
        ServiceError: the block raised what the work's `translate` makes one of.
    """

    __slots__ = ("_current", "_token", "_work", "is_recorded")

    def __init__(self, work: Work, current: RequestContext | None = None) -> None:
        self._work = work
        self._current = current
        self._token: Token[RequestContext | None] | None = None
        self.is_recorded = False

    @property
    def span(self) -> Span | None:
        """What is recorded of it, if anything is."""
        return self if self.is_recorded else None

    def __enter__(self) -> Self:
        """Begin."""
        current, description = self._current, self._work.span
        if current is not None:
            self._token = context.enter(current)
        self.began = perf_counter()
        if description is not None:
            if current is None:
                parent = spans.innermost()
                if parent is not None:
                    self._record(parent.trace, parent, description)
            # What is given a context of its own is a request; what is not, a part of one.
            elif spans.recorder is not None:
                self._record(Trace(current.traceparent, current.request_id), None, description)
        return self

    def _record(self, trace: Trace, parent: Span | None, description: Description) -> None:
        self.is_recorded = True
        self.record(trace, parent, description)
        if trace.is_sampled or description.kind != CLIENT:
            become_innermost(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """End."""
        try:
            if error is None:
                self._end("OK")
            else:
                self._fail(error)
        finally:
            if self._token is not None:
                context.leave(self._token)
                # It may be kept as a span, and what it knows of the request not.
                self._token = self._current = None

    def _fail(self, error: BaseException) -> None:
        work = self._work
        known = work.translate(error, work.name) if isinstance(error, Exception) else None
        self._end(_outcome(error if known is None else known), error)
        if known is not None and known is not error:
            raise known from error

    def _end(self, outcome: str, error: BaseException | None = None) -> None:
        """Every unit of work comes by here and is counted; on most there is no line to write."""
        work, now = self._work, perf_counter()
        seconds = now - self.began
        work.meter.ended(outcome, seconds)
        if self.is_recorded:
            if self.trace.is_sampled or self.description.kind != CLIENT:
                become_innermost(self.parent)
            self.end(now, outcome, error)
        is_failure = work.kind in _ANSWERED and outcome not in ("OK", "CANCELLED")
        if is_failure or logging.debugging:
            # Envoy's access log has every request and every call; this line says why one failed.
            log = _log.info if is_failure else _log.debug
            log(work.kind, operation=work.name, outcome=outcome, duration_ms=round(seconds * 1000, 3))


def _outcome(error: BaseException) -> str:
    if isinstance(error, ServiceError):
        return error.reason
    if isinstance(error, CallerGoneError):
        return "CANCELLED"
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        current = context.current()
        return "DEADLINE_EXCEEDED" if current is not None and current.remaining() == 0 else "CANCELLED"
    return type(error).__name__
