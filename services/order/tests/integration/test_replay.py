"""Idempotency keys: what a repeated request is answered, whenever it comes and whatever was stored."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from chassis.database import Database
from chassis.ids import uuid7
from order.domain.errors import (
    IdempotencyKeyReusedError,
    PaymentDeclinedError,
    PaymentTimeoutError,
    RequestInProgressError,
)
from order.domain.order import OrderStatus
from order.gateways.bounded import BoundedGateway
from order.gateways.payment_sandbox import PaymentSandbox
from order.repository import idempotency, queries
from order.service.catalog import CatalogUseCases
from order.service.orders import Actor, OrderUseCases
from order.service.replay import IdempotentRequest
from order_use_cases import NOW, Clock, new_product, payments_of, refunds_of
from payment_providers import Hanging


async def test_a_key_in_use_is_said_so_at_once_and_not_waited_for(database: Database) -> None:
    user, key, digest = uuid7(), "key-in-use", b"h" * 32
    async with database.transaction() as first, database.transaction() as second:
        assert await idempotency.claim(first, user, key, digest, NOW, b"answer") is None
        with pytest.raises(RequestInProgressError):
            await idempotency.claim(second, user, key, digest, NOW)
    async with database.transaction() as later:
        assert await idempotency.claim(later, user, key, digest, NOW) == b"answer"
        with pytest.raises(IdempotencyKeyReusedError):
            await idempotency.claim(later, user, key, b"x" * 32, NOW)


async def test_a_rolled_back_first_try_leaves_the_key_free(database: Database) -> None:
    user, key, digest = uuid7(), "key-rolled-back", b"h" * 32
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as connection:
            await idempotency.claim(connection, user, key, digest, NOW, b"answer")
            raise ZeroDivisionError
    async with database.transaction() as connection:
        assert await idempotency.claim(connection, user, key, digest, NOW) is None


@pytest.mark.parametrize("operation", ["order", "payment", "refund", "stock"])
async def test_a_repetition_in_the_instant_of_the_firsts_commit_is_not_told_what_that_one_left(
    database: Database,
    replicas: tuple[Clock, list[OrderUseCases]],
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
) -> None:
    """It has the lock, and its snapshot is of before the commit: the order is refunding, the stock is gone."""
    clock, (one, _) = replicas
    sandbox, caches = PaymentSandbox(database), one._transitions.caches
    catalog = CatalogUseCases(database=database, cache=caches.products, now=clock, new_id=uuid7)
    paying, refunding = payments_of(database, one, clock, sandbox), refunds_of(database, one, clock, sandbox)
    user, product = uuid7(), await new_product(database, stock=2)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    if operation == "refund":
        await paying.pay(IdempotentRequest(user, "key-payment", b"p" * 32), order.id, "tok_approved", None)
    request = IdempotentRequest(user, f"key-of-{operation}", b"r" * 32)

    async def operate() -> object:
        match operation:
            case "order":
                return await one.create(request, [(product.id, 1)])
            case "payment":
                return await paying.pay(request, order.id, "tok_approved", None)
            case "refund":
                return await refunding.refund(request, order.id, "no", None, None)
            case _:
                return await catalog.adjust_stock(request, product.id, -1, "no")

    async def before_the_commit(*_: object, **__: object) -> queries.ClaimKeyRow:
        return queries.ClaimKeyRow(locked=True, request_hash=None, response=None)

    async def unknown(_: object) -> None:
        return None

    await operate()
    monkeypatch.setattr(queries, "claim_key", before_the_commit)
    monkeypatch.setattr(queries, "claim_key_in_turn", before_the_commit)
    monkeypatch.setattr(one._replays, "get", unknown)
    with pytest.raises(RequestInProgressError):
        await operate()


async def test_a_key_is_not_forgotten_while_what_it_began_is_under_way(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    clock, (one, _) = replicas
    gateway = BoundedGateway(Hanging(), 0.02)
    paying, refunding = payments_of(database, one, clock, gateway), refunds_of(database, one, clock, gateway)
    calm = payments_of(database, one, clock, PaymentSandbox(database))
    user, product = uuid7(), await new_product(database, stock=2)
    open_one, paid_one = [
        (await one.create(IdempotentRequest(user, f"key-order-{n}", b"o" * 32), [(product.id, 1)]))[0] for n in range(2)
    ]
    payment, refund = IdempotentRequest(user, "key-open", b"p" * 32), IdempotentRequest(user, "key-refund", b"r" * 32)
    with pytest.raises(PaymentTimeoutError):
        await paying.pay(payment, open_one.id, "tok_approved", None)
    await calm.pay(IdempotentRequest(user, "key-calm", b"p" * 32), paid_one.id, "tok_approved", None)
    await refunding.refund(refund, paid_one.id, "no", None, None)
    clock.now += timedelta(hours=25)
    forgotten = 0
    while True:
        async with database.transaction() as connection:
            count = await idempotency.forget(connection, clock.now - timedelta(hours=24), 2)
        forgotten += count
        if count < 2:
            break
    assert forgotten == 3
    # Both retries are known again: the refund is still under way, and another body is another request.
    assert (await refunding.refund(refund, paid_one.id, "no", None, None))[0].status is OrderStatus.REFUNDING
    with pytest.raises(IdempotencyKeyReusedError):
        await calm.pay(IdempotentRequest(user, "key-open", b"x" * 32), open_one.id, "tok_declined", None)
    assert (await calm.pay(payment, open_one.id, "tok_approved", None))[0].status is OrderStatus.PAID
    async with database.transaction() as connection:
        assert await idempotency.forget(connection, clock.now - timedelta(hours=24), 10) == 1


async def test_a_replay_is_the_first_answer_whatever_happened_since_and_keeps_few_bytes(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    _, (one, _) = replicas
    user = uuid7()
    bought = [await new_product(database, 1, "x" * 200) for _ in range(50)]
    request = IdempotentRequest(user, "key-large-order", b"o" * 32)
    order, _ = await one.create(request, [(product.id, 1) for product in bought])
    await one.cancel(order.id, Actor(user), "no", None)
    assert await one.create(request, []) == (order, True)
    async with database.connection() as connection:
        (row,) = await connection.fetch("SELECT response FROM idempotency_keys")
    assert len(row["response"]) < 64


async def test_answers_stored_before_this_version_are_read(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    _, (one, _) = replicas
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-then", b"o" * 32), [(product.id, 1)])
    # As they were written: a list of one, the order with its members by name, or nil for a declined payment.
    then, declined = msgspec.msgpack.encode([order]), msgspec.msgpack.encode([None])
    async with database.transaction() as connection:
        await idempotency.claim(connection, user, "key-older", b"o" * 32, NOW, then)
        await idempotency.claim(connection, user, "key-declined", b"o" * 32, NOW, declined)
    assert await one.create(IdempotentRequest(user, "key-older", b"o" * 32), []) == (order, True)
    with pytest.raises(PaymentDeclinedError):
        await one.create(IdempotentRequest(user, "key-declined", b"o" * 32), [])
