"""Orders and products as they are shown, which is also how they are cached: the record of a hit is the answer itself."""

from __future__ import annotations

from datetime import datetime

from contracts.common.v1 import money_pb2
from contracts.order.v1 import catalog_pb2, order_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from order.domain.money import Money
from order.domain.order import Order, OrderStatus
from order.domain.product import Product

STATUS = {status: order_pb2.OrderStatus.Value(f"ORDER_STATUS_{status.name}") for status in OrderStatus}


def timestamp(moment: datetime) -> Timestamp:
    """A protobuf timestamp."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def money(value: Money) -> money_pb2.Money:
    """A money message."""
    return money_pb2.Money(amount_minor=value.amount_minor, currency=value.currency)


# does not pass on: expires_at
def order(value: Order) -> order_pb2.Order:
    """An order message."""
    return order_pb2.Order(
        id=str(value.id),
        user_id=str(value.user_id),
        status=STATUS[value.status],
        items=[
            order_pb2.OrderItem(
                product_id=str(line.product_id),
                name=line.name,
                quantity=line.quantity,
                unit_price=money(line.unit_price),
                line_total=money(line.total),
            )
            for line in value.lines
        ],
        total=money(value.total),
        version=value.version,
        created_at=timestamp(value.created_at),
        updated_at=timestamp(value.updated_at),
    )


def product(value: Product) -> catalog_pb2.Product:
    """A product message."""
    return catalog_pb2.Product(
        id=str(value.id),
        sku=value.sku,
        name=value.name,
        price=money(value.price),
        available=value.available,
        version=value.version,
        created_at=timestamp(value.created_at),
        stock_version=value.stock_version,
    )
