"""Orders that nobody pays: expired once, by any of several replicas, and none in the way of another."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta
from typing import Any

import pytest
from chassis.database import Database
from chassis.ids import uuid7
from order.domain.order import OrderStatus
from order.repository import orders, payments, products
from order.service.orders import EXPIRY_BATCH, OrderUseCases, Reader
from order.service.replay import IdempotentRequest
from order_use_cases import Clock, new_product


async def test_several_replicas_expire_each_order_once_and_give_its_stock_back_once(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    clock, (one, two) = replicas
    user, product = uuid7(), await new_product(database, stock=200)
    for number in range(120):
        key = IdempotentRequest(user, f"key-{number:08}", hashlib.sha256(b"%d" % number).digest())
        await one.create(key, [(product.id, 1)])
    clock.now += timedelta(minutes=16)
    expired = 0
    while found := await asyncio.gather(one.expire(), two.expire(), one.expire(), two.expire()):
        expired += sum(found)
        if not any(found):
            break
    assert expired == 120
    async with database.connection() as connection:
        mine, _ = await orders.page(connection, orders.OrderFilter(user_id=user), None, 200)
        assert {(order.status, order.version) for order in mine} == {(OrderStatus.EXPIRED, 2)}
        assert (await products.get(connection, product.id)).available == 200


async def test_open_payments_of_older_orders_keep_no_other_order_from_expiring(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    clock, (one, _) = replicas
    product, older = await new_product(database, stock=200), []
    for number in range(EXPIRY_BATCH + 5):
        order, _ = await one.create(IdempotentRequest(uuid7(), f"key-{number:08}", b"h" * 32), [(product.id, 1)])
        older.append(order.id)
        async with database.transaction() as connection:
            attempt = payments.Attempt(uuid7(), order.id, order.user_id, f"pay-{number:08}", "tok_approved", clock.now)
            await payments.begin(connection, attempt)
    clock.now += timedelta(seconds=1)
    late, _ = await one.create(IdempotentRequest(uuid7(), "key-late", b"h" * 32), [(product.id, 1)])
    clock.now += timedelta(minutes=16)
    assert await one.expire() == 1
    assert (await one.get(late.id, Reader(str(uuid7()), sees_any=True))).status is OrderStatus.EXPIRED
    assert (await one.get(older[0], Reader(str(uuid7()), sees_any=True))).status is OrderStatus.PENDING_PAYMENT


async def test_an_order_that_somebody_begins_to_pay_when_it_is_found_is_not_expired(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, (one, _) = replicas
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    expired = orders.expired

    async def found_and_then_paid(*args: Any) -> Any:
        found = await expired(*args)
        async with database.transaction() as connection:
            attempt = payments.Attempt(uuid7(), order.id, user, "key-payment", "tok_approved", clock.now)
            await payments.begin(connection, attempt)
        return found

    monkeypatch.setattr(orders, "expired", found_and_then_paid)
    clock.now += timedelta(minutes=16)
    assert await one.expire() == 0
    assert (await one.get(order.id, Reader(str(user)))).status is OrderStatus.PENDING_PAYMENT


async def test_an_order_that_cannot_be_expired_keeps_no_other_from_it(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    clock, (one, _) = replicas
    product, placed = await new_product(database, stock=200), []
    for number in range(EXPIRY_BATCH + 5):
        order, _ = await one.create(IdempotentRequest(uuid7(), f"key-{number:08}", b"h" * 32), [(product.id, 1)])
        placed.append(order)
    # A row that is in the way of the next one of its history.
    async with database.connection() as connection:
        for order in placed[:-1]:
            await connection.execute(
                "INSERT INTO order_transitions (order_id, version, to_status, reason, occurred_at) "
                "VALUES ($1, 2, 'expired', 'poison', now())",
                order.id,
            )
    clock.now += timedelta(minutes=16)
    assert await one.expire() == 1
    assert (await one.get(placed[-1].id, Reader(str(uuid7()), sees_any=True))).status is OrderStatus.EXPIRED
