"""What is done for an event belongs to what has caused it."""

from __future__ import annotations

from chassis.context import RequestContext
from chassis.events.event import Event
from chassis.tracing.spans import Span


def caused_by(event: Event, deadline: float | None = None) -> RequestContext:
    """The context of what is done for an event: in the trace of its cause, with the event's id as that of the request.

    Args:
        event: the event.
        deadline: when it has to be done, on the event loop's clock.
    """
    return RequestContext(request_id=str(event.id), traceparent=event.traceparent, deadline=deadline)


def describe(span: Span | None, event: Event) -> None:
    """What is known of the span of one event: which event it is, and a link to the span that caused it.

    The span is in the same trace, long after: whoever looks for what a request has caused finds it by either.
    """
    if span is not None:
        span.attributes = {"messaging.message.id": str(event.id)}
        span.link = event.traceparent
