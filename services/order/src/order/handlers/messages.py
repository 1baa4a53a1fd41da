"""Domain values to protobuf and back; those that are also kept as they are shown are in `order.service.records`."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Literal, Protocol
from uuid import UUID

from chassis import context
from contracts.order.v1 import order_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from order.domain.money import MAX_SUM_MINOR, Money
from order.domain.order import Transition
from order.domain.refund import Refund, RefundStatus
from order.repository.orders import OrderFilter
from order.service.records import STATUS, timestamp
from order.service.replay import IdempotentRequest

_REFUND_TO_WIRE = {status: order_pb2.RefundStatus.Value(f"REFUND_STATUS_{status.name}") for status in RefundStatus}
_FROM_WIRE = {number: status for status, number in STATUS.items()}


class _Versioned(Protocol):
    """A request that may name the version which it is meant for."""

    @property
    def expected_version(self) -> int: ...

    def HasField(self, field_name: Literal["expected_version"], /) -> bool: ...


def spent(value: Money) -> order_pb2.Spent:
    """A sum over orders, capped at what JSON can carry."""
    shown = min(value.amount_minor, MAX_SUM_MINOR)
    return order_pb2.Spent(amount_minor=shown, currency=value.currency, capped=shown < value.amount_minor)


# does not pass on: order_id
def transition(value: Transition) -> order_pb2.OrderTransition:
    """A transition message."""
    shipment = value.shipment
    return order_pb2.OrderTransition(
        version=value.version,
        from_status=order_pb2.ORDER_STATUS_UNSPECIFIED if value.from_status is None else STATUS[value.from_status],
        to_status=STATUS[value.to_status],
        actor_id="" if value.actor_id is None else str(value.actor_id),
        reason=value.reason,
        occurred_at=timestamp(value.occurred_at),
        carrier="" if shipment is None else shipment.carrier,
        tracking_number="" if shipment is None else shipment.tracking_number,
    )


# does not pass on: idempotency_key
def refund(value: Refund) -> order_pb2.Refund:
    """A refund message."""
    return order_pb2.Refund(
        order_id=str(value.order_id),
        status=_REFUND_TO_WIRE[value.status],
        restock=value.restock,
        reason=value.reason,
        actor_id=str(value.actor_id),
        attempts=value.attempts,
        last_error=value.last_error,
        next_attempt_at=None if value.status is RefundStatus.SUCCEEDED else timestamp(value.next_attempt_at),
        requested_at=timestamp(value.requested_at),
        updated_at=timestamp(value.updated_at),
        payment_reference="" if value.payment_id is None else str(value.payment_id),
    )


def order_filter(message: order_pb2.OrderFilter, user_id: UUID | None) -> OrderFilter:
    """What a list is filtered by."""
    return OrderFilter(
        user_id=user_id,
        # A status that only a newer caller knows is an error here: ignoring it would show all orders.
        status=None if message.status == order_pb2.ORDER_STATUS_UNSPECIFIED else _FROM_WIRE[message.status],
        created_from=_moment(message.created_from) if message.HasField("created_from") else None,
        created_before=_moment(message.created_before) if message.HasField("created_before") else None,
    )


def _moment(message: Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=UTC)


def version(message: _Versioned) -> int | None:
    """The `expected_version` of a request, None when it has none."""
    return message.expected_version if message.HasField("expected_version") else None


def idempotent_request(operation: str, message: Message, key: str) -> IdempotentRequest:
    """A request with an idempotency key: the caller's, and the same only when everything it wants is the same.

    The condition (If-Match) does not count: each version that it names is tried by itself, and a repetition must find what
    the version that matched has done.
    """
    wanted = type(message)()
    wanted.CopyFrom(message)
    if "expected_version" in message.DESCRIPTOR.fields_by_name:
        wanted.ClearField("expected_version")
    body = operation.encode() + wanted.SerializeToString(deterministic=True)
    return IdempotentRequest(UUID(context.caller().user_id), key, hashlib.sha256(body).digest())
