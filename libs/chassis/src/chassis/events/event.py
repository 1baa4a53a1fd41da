"""What an event is between a service and the broker, whatever it is about."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened, with the attributes that CloudEvents 1.0.2 names.

    Two with the same `source` and `id` are the same event, told again (CloudEvents, section 3.1.1).
    """

    # A UUIDv7.
    id: UUID
    # The name of the service in which it happened.
    source: str
    # The full name of the message in `data`: "order.v1.OrderPlaced".
    type: str
    # To what it happened, "order/0192...": events of one subject are told in the order in which they happened.
    subject: str
    # When it happened, UTC.
    time: datetime
    # Where the message of `data` is described.
    dataschema: str
    # W3C Trace Context of what caused it; empty when that was part of no trace.
    traceparent: str
    # The message, serialized.
    data: bytes
