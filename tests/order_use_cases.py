"""The Order service's use cases, as its integration tests build them, and what they are tried on."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from chassis.database import Database
from chassis.ids import uuid7
from order.domain.money import Money
from order.domain.product import Product
from order.gateways.payment import PaymentGateway
from order.repository import products
from order.service.orders import OrderUseCases
from order.service.payments import PaymentUseCases
from order.service.refunds import RefundUseCases

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


async def new_product(database: Database, stock: int, name: str = "thing") -> Product:
    product = Product(uuid7(), f"I-{uuid.uuid4().hex[:20].upper()}", name, Money(100, "EUR"), stock, 1, 1, NOW)
    async with database.transaction() as connection:
        return await products.insert(connection, product)


def refunds_of(database: Database, one: OrderUseCases, clock: Clock, gateway: PaymentGateway) -> RefundUseCases:
    return RefundUseCases(database=database, transitions=one._transitions, gateway=gateway, now=clock)


def payments_of(
    database: Database, one: OrderUseCases, clock: Clock, gateway: PaymentGateway, most_declined: int = 0
) -> PaymentUseCases:
    return PaymentUseCases(
        database=database,
        transitions=one._transitions,
        replays=one._replays,
        gateway=gateway,
        now=clock,
        answer_time=timedelta(seconds=1),
        most_declined=most_declined,
    )
