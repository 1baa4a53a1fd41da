"""One wrapper around every unit of work: its context, its time, its outcome, what its errors become, its log line.

A unit of work is an operation that a client asked for, an RPC, a call of another service, a use of the database or of
Valkey, a run of a worker:

    _GET = Work("valkey", "get")

    with observe(_GET):
        ...

Whoever wants to hear of all of them is told in one place, `_ended`: the metrics, the trace that the unit is a part of, and
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
from chassis.tracing.spans import Description, Span

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


class observe:  # noqa: N801 - used like a function
    """Around one unit of work.

    Args:
        work: what it is.
        current: the context to do it in, when it is not the one of the request that it is a part of.

    Raises:
        ServiceError: the block raised what the work's `translate` makes one of.
    """

    __slots__ = ("_began", "_current", "_token", "_work", "span")

    def __init__(self, work: Work, current: RequestContext | None = None) -> None:
        self._work = work
        self._current = current
        self._token: Token[RequestContext | None] | None = None

    def __enter__(self) -> Self:
        """Begin."""
        current, span = self._current, self._work.span
        if current is not None:
            self._token = context.enter(current)
        self._began = began = perf_counter()
        self.span: Span | None = None
        if span is not None:
            # What is given a context of its own is a request; what is not, a part of one.
            self.span = (
                spans.begin(span, began)
                if current is None
                else spans.begin_request(span, current.traceparent, current.request_id, began)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """End."""
        try:
            if error is None:
                _ended(self._work, "OK", self._began, self.span)
            else:
                self._fail(error)
        finally:
            if self._token is not None:
                context.leave(self._token)

    def _fail(self, error: BaseException) -> None:
        work = self._work
        known = work.translate(error, work.name) if isinstance(error, Exception) else None
        _ended(work, _outcome(error if known is None else known), self._began, self.span, error)
        if known is not None and known is not error:
            raise known from error


def _outcome(error: BaseException) -> str:
    if isinstance(error, ServiceError):
        return error.reason
    if isinstance(error, CallerGoneError):
        return "CANCELLED"
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        current = context.current()
        return "DEADLINE_EXCEEDED" if current is not None and current.remaining() == 0 else "CANCELLED"
    return type(error).__name__


def _ended(
    work: Work, outcome: str, began: float, span: Span | None = None, error: BaseException | None = None
) -> None:
    """A unit of work has ended. Every one comes by here and is counted; on most there is no line to write."""
    seconds = perf_counter() - began
    work.meter.ended(outcome, seconds)
    if span is not None:
        spans.end(span, outcome, error)
    is_failure = work.kind in _ANSWERED and outcome not in ("OK", "CANCELLED")
    if is_failure or logging.debugging:
        # Envoy's access log has every request and every call; this line says why one failed.
        log = _log.info if is_failure else _log.debug
        log(work.kind, operation=work.name, outcome=outcome, duration_ms=round(seconds * 1000, 3))
