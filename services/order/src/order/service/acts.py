"""What the Order service keeps in its audit trail (docs/audit.md)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from chassis.audit import acts
from chassis.database import Transaction

from order.domain.money import Money
from order.domain.order import Order, OrderStatus
from order.domain.product import Product
from order.domain.refund import Refund


def product_created(connection: Transaction, product: Product, now: datetime) -> None:
    """There is a new product, with a price and a stock."""
    after = {"sku": product.sku, **_price(product.price), "available": product.available}
    connection.audit("product.created", _product(product.id), now, after=after)


def product_changed(connection: Transaction, before: Product, product: Product, now: datetime) -> None:
    """A product is another than before; what matters is its price."""
    if product.price != before.price:
        connection.audit(
            "product.price_changed",
            _product(product.id),
            now,
            before=_price(before.price),
            after=_price(product.price),
        )


def stock_changed(connection: Transaction, before: Product, product: Product, reason: str, now: datetime) -> None:
    """Somebody has changed the stock by hand. What orders take and give back is in their own history."""
    connection.audit(
        "product.stock_changed",
        _product(product.id),
        now,
        before={"available": before.available},
        after={"available": product.available, "reason": reason},
    )


def refund_requested(connection: Transaction, before: Order, refund: Refund, now: datetime) -> None:
    """Somebody wants an order's money given back."""
    connection.audit(
        "order.refund_requested",
        _order(before.id),
        now,
        actor=acts.user(refund.actor_id),
        before={"status": before.status},
        after={
            "status": OrderStatus.REFUNDING,
            **_price(before.total),
            "restock": refund.restock,
            "reason": refund.reason,
        },
    )


def refunded(connection: Transaction, order: Order, refund: Refund, now: datetime) -> None:
    """The money is back, for whoever wanted it, even where nobody waits for it any more."""
    connection.audit(
        "order.refunded",
        _order(order.id),
        now,
        actor=acts.user(refund.actor_id),
        before={"status": OrderStatus.REFUNDING},
        after={"status": order.status, **_price(order.total), "restock": refund.restock},
    )


def _price(price: Money) -> dict[str, acts.Value]:
    return {"amount_minor": price.amount_minor, "currency": price.currency}


def _product(product_id: UUID) -> str:
    return f"product/{product_id}"


def _order(order_id: UUID) -> str:
    return f"order/{order_id}"
