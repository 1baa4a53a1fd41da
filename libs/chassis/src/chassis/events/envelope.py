"""An event as a message: its attributes as headers, its data as the body (CloudEvents, NATS protocol binding, binary mode)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

from chassis.context import accept_traceparent
from chassis.events.event import Event

CONTENT_TYPE = "content-type"
_PROTOBUF = "application/protobuf"
_SPECIFICATION = "1.0"


class UnreadableEventError(Exception):
    """A message is no event; its text says why, and has nothing of what is in it."""


def headers(event: Event) -> dict[str, str]:
    """The headers of its message."""
    found = {
        "ce-specversion": _SPECIFICATION,
        "ce-id": str(event.id),
        "ce-source": event.source,
        "ce-type": event.type,
        "ce-subject": event.subject,
        "ce-time": event.time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "ce-dataschema": event.dataschema,
        CONTENT_TYPE: _PROTOBUF,
    }
    # An extension of CloudEvents (distributed tracing).
    return found | ({"ce-traceparent": event.traceparent} if event.traceparent else {})


def event(headers: Mapping[str, str], data: bytes) -> Event:
    """The event of a message.

    Raises:
        UnreadableEventError: it is none.
    """
    try:
        if headers["ce-specversion"] != _SPECIFICATION or headers[CONTENT_TYPE] != _PROTOBUF:
            raise UnreadableEventError("it is of another version of CloudEvents, or not protobuf")
        moment = datetime.fromisoformat(headers["ce-time"])
        if moment.tzinfo is None:
            raise UnreadableEventError("its time has no zone")
        return Event(
            id=UUID(headers["ce-id"]),
            source=headers["ce-source"],
            type=headers["ce-type"],
            subject=headers["ce-subject"],
            time=moment.astimezone(UTC),
            dataschema=headers["ce-dataschema"],
            traceparent=accept_traceparent(headers.get("ce-traceparent")),
            data=data,
        )
    except KeyError as error:
        raise UnreadableEventError(f"it has no header {error.args[0]}") from None
    except (ValueError, OverflowError):
        raise UnreadableEventError("its id or its time cannot be read") from None
