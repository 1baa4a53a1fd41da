"""What the Order service tells, of what has happened in its domain (api/proto/order/v1/events.proto)."""

from __future__ import annotations

from contracts.order.v1 import events_pb2
from google.protobuf.message import Message

from order.domain.money import Money
from order.domain.order import Order, OrderStatus, Shipment, Transition
from order.domain.product import Product
from order.repository.payments import Attempt
from order.repository.queries import PaymentStatus
from order.service import records

_FAILURES = {
    PaymentStatus.DECLINED: events_pb2.PAYMENT_FAILURE_DECLINED,
    PaymentStatus.FAILED: events_pb2.PAYMENT_FAILURE_NOT_MADE,
}
# All others say more; what is none is an intent, like refunding: what counts is that the money is back.
_TOLD_BY_THE_ORDER_ALONE = {
    OrderStatus.PAID: events_pb2.OrderPaid,
    OrderStatus.DELIVERED: events_pb2.OrderDelivered,
    OrderStatus.EXPIRED: events_pb2.OrderExpired,
}


def placed(order: Order) -> events_pb2.OrderPlaced:
    """An order has been placed."""
    return events_pb2.OrderPlaced(order=records.order(order))


def of_step(order: Order, transition: Transition) -> Message | None:
    """What a transition tells, of the order as it left it; None of one that matters to nobody else."""
    message, reason = records.order(order), transition.reason
    actor_id = "" if transition.actor_id is None else str(transition.actor_id)
    match transition.to_status:
        case OrderStatus.SHIPPED:
            shipment = transition.shipment or Shipment("", "")
            return events_pb2.OrderShipped(
                order=message, carrier=shipment.carrier, tracking_number=shipment.tracking_number
            )
        case OrderStatus.CANCELLED:
            return events_pb2.OrderCancelled(order=message, actor_id=actor_id, reason=reason)
        case OrderStatus.REFUNDED:
            return events_pb2.OrderRefunded(order=message, actor_id=actor_id, reason=reason)
        case status:
            told = _TOLD_BY_THE_ORDER_ALONE.get(status)
            return None if told is None else told(order=message)


# does not pass on: idempotency_key, payment_token, begun
def payment_failed(attempt: Attempt, amount: Money, status: PaymentStatus) -> events_pb2.PaymentFailed:
    """An attempt to pay so much came to nothing."""
    return events_pb2.PaymentFailed(
        order_id=str(attempt.order_id),
        user_id=str(attempt.user_id),
        payment_id=str(attempt.id),
        amount=records.money(amount),
        failure=_FAILURES[status],
    )


def product_changed(product: Product) -> events_pb2.ProductChanged:
    """A product is new, or another than before."""
    return events_pb2.ProductChanged(product=records.product(product))


# does not pass on: created_at, name, price, sku, version
def stock_changed(product: Product, delta: int) -> events_pb2.StockChanged:
    """So many pieces have come, or gone."""
    return events_pb2.StockChanged(
        product_id=str(product.id), delta=delta, available=product.available, stock_version=product.stock_version
    )
