"""The order, its lines, and its state machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from order.domain.errors import IllegalTransitionError, StaleVersionError
from order.domain.money import Money


class OrderStatus(StrEnum):
    """Where an order stands."""

    PENDING_PAYMENT = "pending_payment"
    PAID = "paid"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    # The money is on its way back: nothing else may happen to the order until it is there.
    REFUNDING = "refunding"
    REFUNDED = "refunded"


# The whole state machine; a status that is no key here is final.
TRANSITIONS: Mapping[OrderStatus, frozenset[OrderStatus]] = {
    OrderStatus.PENDING_PAYMENT: frozenset({OrderStatus.PAID, OrderStatus.CANCELLED, OrderStatus.EXPIRED}),
    OrderStatus.PAID: frozenset({OrderStatus.SHIPPED, OrderStatus.REFUNDING}),
    OrderStatus.SHIPPED: frozenset({OrderStatus.DELIVERED, OrderStatus.REFUNDING}),
    OrderStatus.DELIVERED: frozenset({OrderStatus.REFUNDING}),
    OrderStatus.REFUNDING: frozenset({OrderStatus.REFUNDED}),
}

# The statuses that give the reserved stock back; of a refunded order its refund says whether it does.
RELEASES_STOCK = frozenset({OrderStatus.CANCELLED, OrderStatus.EXPIRED})


@dataclass(frozen=True, slots=True)
class OrderLine:
    """A product as it was ordered: name and price are copies, later changes of the catalog do not touch them."""

    product_id: UUID
    name: str
    quantity: int
    unit_price: Money

    @property
    def total(self) -> Money:
        """Price times quantity."""
        return self.unit_price * self.quantity


@dataclass(frozen=True, slots=True)
class Order:
    """An order; every change makes a new value with the next version."""

    id: UUID
    user_id: UUID
    status: OrderStatus
    lines: tuple[OrderLine, ...]
    total: Money
    version: int
    expires_at: datetime
    created_at: datetime
    updated_at: datetime

    def transition_to(self, status: OrderStatus, now: datetime) -> Order:
        """The order after a transition.

        Raises:
            IllegalTransitionError: the state machine does not allow it.
        """
        if status not in TRANSITIONS.get(self.status, frozenset()):
            raise IllegalTransitionError(f"a {self.status} order cannot become {status}", status=self.status)
        return replace(self, status=status, version=self.version + 1, updated_at=now)

    def require_version(self, version: int | None) -> None:
        """Check a conditional change.

        Raises:
            StaleVersionError: `version` is not None and not the current one.
        """
        if version is not None and version != self.version:
            raise StaleVersionError


@dataclass(frozen=True, slots=True)
class Shipment:
    """How an order was sent."""

    carrier: str
    tracking_number: str


@dataclass(frozen=True, slots=True)
class Transition:
    """One step in an order's history."""

    order_id: UUID
    version: int
    # None: the order's creation.
    from_status: OrderStatus | None
    to_status: OrderStatus
    # None: the system itself.
    actor_id: UUID | None
    reason: str
    occurred_at: datetime
    # Of the step to shipped. None of all others, and of one that a release before this field has made.
    shipment: Shipment | None = None


def step(
    order: Order,
    status: OrderStatus,
    *,
    actor_id: UUID | None,
    reason: str,
    now: datetime,
    shipment: Shipment | None = None,
) -> tuple[Order, Transition]:
    """The order after a transition, and the transition for its history.

    Raises:
        IllegalTransitionError: the state machine does not allow it.
    """
    changed = order.transition_to(status, now)
    return changed, Transition(order.id, changed.version, order.status, status, actor_id, reason, now, shipment)
