"""Mails: why somebody is written to, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class MailKind(StrEnum):
    """Why somebody is written to; each has its templates."""

    ORDER_PLACED = "order_placed"
    ORDER_SHIPPED = "order_shipped"
    ORDER_REFUNDED = "order_refunded"
    ORDER_DELIVERED = "order_delivered"
    WELCOME = "welcome"

    @property
    def is_required(self) -> bool:
        """Whether it is part of a transaction: what was bought, where it is, where the money is."""
        return self in (MailKind.ORDER_PLACED, MailKind.ORDER_SHIPPED, MailKind.ORDER_REFUNDED)


class MailState(StrEnum):
    """What has become of a mail; all but WAITING are for good."""

    WAITING = "waiting"
    SENT = "sent"
    # The recipient does not want this kind; is gone, or disabled.
    UNWANTED = "unwanted"
    NO_RECIPIENT = "no_recipient"
    # The server will never take it; it was tried as often as may be.
    REFUSED = "refused"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that is to be written because of an event.

    Attributes:
        event_id: of the event, and so of the mail: there is one for each.
        kind: why.
        user_id: to whom.
        data: the event's message.
        occurred_at: when it happened, UTC.
        traceparent: of what has noted it.
        attempts: how often it was begun, this time included.
    """

    event_id: UUID
    kind: MailKind
    user_id: UUID
    data: bytes
    occurred_at: datetime
    traceparent: str
    attempts: int = 0
