"""Giving the money of an order back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from order.domain.order import Order, OrderStatus

# The longest `Refund.last_error` that is kept: `Refund.last_error` in the contract.
MAX_ERROR = 400


class RefundStatus(StrEnum):
    """How far a refund is."""

    # The provider has not given the money back yet, or has not said so.
    PENDING = "pending"
    # The provider said no the last time it was asked; it is asked again.
    REFUSED = "refused"
    SUCCEEDED = "succeeded"


@dataclass(frozen=True, slots=True)
class Refund:
    """The intent to refund an order, recorded before the provider is asked; an order has one at most."""

    order_id: UUID
    # The payment's reference with the provider. None when it is not recorded: the refund then waits until somebody finds it.
    payment_id: UUID | None
    # Whether the pieces go back into stock.
    restock: bool
    reason: str
    # Who asked for it, under which idempotency key.
    actor_id: UUID
    idempotency_key: str
    status: RefundStatus
    # How often the provider was asked, and why the last time did not succeed (empty: it did, or has not ended).
    attempts: int
    last_error: str
    # When it is asked next, unless it has succeeded.
    next_attempt_at: datetime
    requested_at: datetime
    updated_at: datetime


def readable(said: str) -> str:
    """What somebody else says, a provider, as it is kept and shown to people: one line, and not without end."""
    return "".join(character if character.isprintable() else " " for character in said[:MAX_ERROR])


def restocks_by_default(order: Order) -> bool:
    """Whether a refund puts the pieces back into stock unless it is told otherwise: only if they were never shipped."""
    return order.status is OrderStatus.PAID
