"""Database rows to domain values and back."""

from __future__ import annotations

from collections.abc import Sequence

from order.domain.money import Money
from order.domain.order import Order, OrderLine, OrderStatus, Shipment, Transition
from order.domain.product import Product
from order.domain.refund import Refund, RefundStatus
from order.repository import queries


def product(row: queries.Product) -> Product:
    """A product."""
    price = Money(row.price_minor, row.currency)
    return Product(row.id, row.sku, row.name, price, row.available, row.version, row.stock_version, row.created_at)


def order(row: queries.Order, items: Sequence[queries.OrderItem]) -> Order:
    """An order with its lines."""
    return Order(
        id=row.id,
        user_id=row.user_id,
        status=OrderStatus(row.status),
        lines=tuple(
            OrderLine(item.product_id, item.name, item.quantity, Money(item.unit_price_minor, row.currency))
            for item in items
        ),
        total=Money(row.total_minor, row.currency),
        version=row.version,
        expires_at=row.expires_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def transition(row: queries.OrderTransition) -> Transition:
    """One step of an order's history."""
    return Transition(
        row.order_id,
        row.version,
        None if row.from_status is None else OrderStatus(row.from_status),
        OrderStatus(row.to_status),
        row.actor_id,
        row.reason,
        row.occurred_at,
        None if row.carrier is None or row.tracking_number is None else Shipment(row.carrier, row.tracking_number),
    )


def refund(row: queries.Refund) -> Refund:
    """A refund."""
    return Refund(
        order_id=row.order_id,
        payment_id=row.payment_id,
        restock=row.restock,
        reason=row.reason,
        actor_id=row.actor_id,
        idempotency_key=row.idempotency_key,
        status=RefundStatus(row.status),
        attempts=row.attempts,
        last_error=row.last_error,
        next_attempt_at=row.next_attempt_at,
        requested_at=row.requested_at,
        updated_at=row.updated_at,
    )
