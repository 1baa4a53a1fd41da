"""Events become mails: a row for each, in the transaction in which the event is acted on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar
from uuid import UUID

from chassis.database import Connection
from chassis.events.consumer import Acts, Handles
from chassis.events.event import Event
from chassis.tracing import spans
from contracts.order.v1 import events_pb2 as order_events
from contracts.user.v1 import events_pb2 as user_events
from google.protobuf.message import Message

from notification.domain.mail import Mail, MailKind
from notification.repository import mails

M = TypeVar("M", bound=Message)


class NotesMail(Generic[M]):
    """Notes the mail of one type of events. It is sent from there (`sending`), so that it is one however often the event comes.

    Args:
        kind: of the mail.
        recipient: the id of the user whom it goes to.
    """

    def __init__(self, kind: MailKind, recipient: Callable[[M], str]) -> None:
        self._kind = kind
        self._recipient = recipient

    async def __call__(self, message: M, event: Event, connection: Connection) -> None:
        """See `chassis.events.consumer.Handler`.

        Raises:
            ValueError: the event names nobody.
        """
        span = spans.innermost()
        mail = Mail(
            event_id=event.id,
            kind=self._kind,
            user_id=UUID(self._recipient(message)),
            data=event.data,
            occurred_at=event.time,
            traceparent=span.traceparent() if span is not None else event.traceparent,
        )
        await mails.note(connection, mail)


def handlers() -> Sequence[Acts]:
    """What is done about each type of events that the service's row names."""
    return (
        Handles(order_events.OrderPlaced, NotesMail(MailKind.ORDER_PLACED, lambda placed: placed.order.user_id)),
        Handles(order_events.OrderShipped, NotesMail(MailKind.ORDER_SHIPPED, lambda shipped: shipped.order.user_id)),
        Handles(
            order_events.OrderDelivered, NotesMail(MailKind.ORDER_DELIVERED, lambda delivered: delivered.order.user_id)
        ),
        Handles(
            order_events.OrderRefunded, NotesMail(MailKind.ORDER_REFUNDED, lambda refunded: refunded.order.user_id)
        ),
        Handles(user_events.UserRegistered, NotesMail(MailKind.WELCOME, lambda registered: registered.user_id)),
    )
