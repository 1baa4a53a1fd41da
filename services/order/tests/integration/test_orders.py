"""Placing and reading orders: who sees them, what one user may reserve, and what waits for what."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from datetime import timedelta

import pytest
from chassis.database import Database
from chassis.ids import uuid7
from order.domain.errors import (
    NotFoundError,
    TooManyUnpaidOrdersError,
    TooMuchUnpaidError,
)
from order.domain.order import Order
from order.domain.product import Product
from order.domain.unpaid import UnpaidLimits
from order.gateways.payment_sandbox import PaymentSandbox
from order.repository import products
from order.service import records
from order.service.orders import Actor, OrderUseCases, Reader
from order.service.replay import IdempotentRequest
from order_use_cases import Clock, new_product, payments_of


class TestUnpaid:
    LIMITS = UnpaidLimits(orders=3, pieces=5, window=timedelta(hours=1))

    @pytest.fixture
    async def shop(
        self, database: Database, replicas: tuple[Clock, list[OrderUseCases]]
    ) -> tuple[Clock, OrderUseCases]:
        clock, (one, two) = replicas
        one._unpaid = two._unpaid = self.LIMITS
        return clock, one

    async def buy(self, one: OrderUseCases, user: uuid.UUID, product: Product, quantity: int) -> Order:
        key = uuid.uuid4().hex
        order, _ = await one.create(
            IdempotentRequest(user, key, hashlib.sha256(key.encode()).digest()), [(product.id, quantity)]
        )
        return order

    async def test_one_user_reserves_no_more_than_so_many_pieces_also_one_after_the_other(
        self, database: Database, shop: tuple[Clock, OrderUseCases]
    ) -> None:
        clock, one = shop
        user, product = uuid7(), await new_product(database, stock=100)
        await self.buy(one, user, product, 4)
        with pytest.raises(TooMuchUnpaidError) as caught:
            await self.buy(one, user, product, 2)
        assert caught.value.facts == {str(product.id): "1"}
        await self.buy(one, user, product, 1)
        await self.buy(one, uuid7(), product, 5)
        # Expired, and still counted for the rest of the window.
        clock.now += timedelta(minutes=16)
        assert await one.expire() == 3
        with pytest.raises(TooMuchUnpaidError):
            await self.buy(one, user, product, 1)
        clock.now += timedelta(minutes=45)
        await self.buy(one, user, product, 5)

    async def test_what_is_paid_does_not_count_and_what_is_cancelled_does(
        self, database: Database, shop: tuple[Clock, OrderUseCases]
    ) -> None:
        clock, one = shop
        user, product = uuid7(), await new_product(database, stock=100)
        paying = payments_of(database, one, clock, PaymentSandbox(database))
        for _ in range(4):
            order = await self.buy(one, user, product, 5)
            await paying.pay(IdempotentRequest(user, f"pay-{order.id}", b"p" * 32), order.id, "tok_approved", None)
        for _ in range(3):
            order = await self.buy(one, user, product, 1)
            await one.cancel(order.id, Actor(user), "no", None)
        with pytest.raises(TooManyUnpaidOrdersError):
            await self.buy(one, user, product, 1)

    async def test_simultaneous_orders_of_one_user_stay_within_the_limit(
        self, database: Database, replicas: tuple[Clock, list[OrderUseCases]], shop: tuple[Clock, OrderUseCases]
    ) -> None:
        _, pair = replicas
        user = uuid7()
        different = [await new_product(database, stock=10) for _ in range(10)]
        placed = await asyncio.gather(
            *(self.buy(pair[i % 2], user, product, 1) for i, product in enumerate(different)), return_exceptions=True
        )
        assert sum(isinstance(order, Order) for order in placed) == 3
        assert sum(isinstance(error, TooManyUnpaidOrdersError) for error in placed) == 7


async def test_nobody_sees_a_strangers_order(database: Database, replicas: tuple[Clock, list[OrderUseCases]]) -> None:
    _, (one, _) = replicas
    product = await new_product(database, stock=1)
    order, replayed = await one.create(IdempotentRequest(uuid7(), "key-stranger", b"h" * 32), [(product.id, 1)])
    assert not replayed
    with pytest.raises(NotFoundError):
        await one.get(order.id, Reader(str(uuid7())))
    assert await one.get(order.id, Reader(str(uuid7()), sees_any=True)) == order
    # The first time from the database, then from the cache.
    for _ in range(2):
        with pytest.raises(NotFoundError):
            await one.shown(str(order.id), Reader(str(uuid7())))
        for reader in (Reader(str(order.user_id)), Reader(str(uuid7()), sees_any=True)):
            assert await one.shown(str(order.id), reader) == records.order(order)


async def test_transactions_that_wait_for_a_lock_leave_connections_to_who_reads(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    _, (one, _) = replicas
    user, product = uuid7(), await new_product(database, stock=100)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    async with database.transaction() as holding:
        await products.lock(holding, product.id)
        waiting = [
            asyncio.create_task(one.create(IdempotentRequest(uuid7(), f"key-{n:08}", b"o" * 32), [(product.id, 1)]))
            for n in range(20)
        ]
        async with asyncio.timeout(10), database.connection() as looking:
            blocked = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            while len(await looking.fetch(blocked)) < 5:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            assert (await one.get(order.id, Reader(str(user)))) == order
    await asyncio.gather(*waiting)
