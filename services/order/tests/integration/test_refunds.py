"""Refunds, which somebody else may finish first."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import pytest
from chassis.database import Database
from chassis.ids import uuid7
from order.domain.errors import (
    IllegalTransitionError,
    PaymentTimeoutError,
)
from order.domain.order import Order, OrderStatus
from order.domain.refund import RefundStatus
from order.gateways.bounded import BoundedGateway
from order.gateways.payment import RefundOutcome
from order.gateways.payment_sandbox import PaymentSandbox
from order.repository import orders, products
from order.service.orders import Actor, OrderUseCases, Reader
from order.service.replay import IdempotentRequest
from order_use_cases import Clock, new_product, payments_of, refunds_of
from payment_providers import Broken, Hanging


async def test_a_paid_order_of_which_no_payment_is_known_is_never_said_to_be_refunded(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    clock, (one, _) = replicas
    refunding = refunds_of(database, one, clock, PaymentSandbox(database))
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    async with database.transaction() as connection:
        await one._transitions.apply(
            connection, await orders.lock(connection, order.id), OrderStatus.PAID, actor_id=None, reason="by hand"
        )
    refunded, _ = await refunding.refund(IdempotentRequest(user, "key-refund", b"r" * 32), order.id, "no", None, None)
    assert refunded.status is OrderStatus.REFUNDING
    clock.now += timedelta(hours=2)
    assert await refunding.finish_due() == 0
    found = await refunding.get(order.id)
    assert (found.status, found.last_error) == (RefundStatus.REFUSED, "no approved payment of this order is known")
    async with database.connection() as connection:
        assert (await products.get(connection, product.id)).available == 0


@pytest.mark.parametrize("ends", ["succeeds", "times out", "is refused"])
async def test_a_refund_that_somebody_else_finished_meanwhile_stays_finished(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]], ends: str
) -> None:
    clock, (one, two) = replicas
    sandbox = PaymentSandbox(database)
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    await payments_of(database, one, clock, sandbox).pay(
        IdempotentRequest(user, "key-pay-1", b"p" * 32), order.id, "tok_approved", None
    )
    sweep = refunds_of(database, two, clock, sandbox)

    class Overtaken(Broken):
        async def refund(self, reference: uuid.UUID) -> RefundOutcome:
            outcome = await sandbox.refund(reference)
            clock.now += timedelta(minutes=1)
            assert await sweep.finish_due() == 1
            if ends == "times out":
                raise PaymentTimeoutError
            return RefundOutcome.REFUSED if ends == "is refused" else outcome

    request = IdempotentRequest(user, "key-refund", b"r" * 32)
    answer, _ = await refunds_of(database, one, clock, Overtaken(sandbox)).refund(request, order.id, "no", None, None)
    refunded, replayed = await sweep.refund(request, order.id, "no", None, None)
    assert (refunded.status, refunded.version, replayed) == (OrderStatus.REFUNDED, 4, True)
    assert answer == refunded or (ends != "succeeds" and answer.status is OrderStatus.REFUNDING)
    assert (await sweep.get(order.id)).status is RefundStatus.SUCCEEDED
    async with database.connection() as connection:
        assert (await products.get(connection, product.id)).available == 1


async def test_a_refund_that_waited_for_the_sweep_answers_what_it_did(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    """Repeated while the sweep finishes it: the repetition waits for the order, which is then refunded."""
    clock, (one, two) = replicas
    sandbox = PaymentSandbox(database)
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    paying = payments_of(database, one, clock, sandbox)
    await paying.pay(IdempotentRequest(user, "key-payment", b"p" * 32), order.id, "tok_approved", None)
    request = IdempotentRequest(user, "key-refund", b"r" * 32)
    hanging = refunds_of(database, one, clock, BoundedGateway(Hanging(), 0.02))
    assert (await hanging.refund(request, order.id, "no", None, None))[0].status is OrderStatus.REFUNDING
    again = refunds_of(database, two, clock, Hanging())
    waiting: list[asyncio.Task[tuple[Order, bool]]] = []
    apply = one._transitions.apply

    async def slowly(*args: Any, **options: Any) -> Order:
        changed = await apply(*args, **options)
        waiting.append(asyncio.create_task(again.refund(request, order.id, "no", None, None)))
        async with database.connection() as connection:
            while not await connection.fetch("SELECT FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
        return changed

    one._transitions.apply = slowly  # type: ignore[method-assign]
    clock.now += timedelta(minutes=1)
    assert await refunds_of(database, one, clock, sandbox).finish_due() == 1
    # Nobody asks the provider again: it would never answer.
    refunded, replayed = await asyncio.wait_for(waiting[0], 10)
    assert (refunded.status, replayed) == (OrderStatus.REFUNDED, True)


async def test_a_refund_whose_process_died_is_finished_by_the_sweep_and_answered_under_its_key(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    clock, (one, _) = replicas
    gateway = Broken(PaymentSandbox(database))
    paying, refunding = payments_of(database, one, clock, gateway), refunds_of(database, one, clock, gateway)
    user, support, product = uuid7(), uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    await paying.pay(IdempotentRequest(user, "key-payment", b"p" * 32), order.id, "tok_approved", None)
    async with database.connection() as connection:
        gateway.poison = {row["id"] for row in await connection.fetch("SELECT id FROM payments")}
    request = IdempotentRequest(support, "key-refund", b"r" * 32)
    with pytest.raises(ZeroDivisionError):
        await refunding.refund(request, order.id, "no", None, None)
    assert (await one.get(order.id, Reader(str(user)))).status is OrderStatus.REFUNDING
    with pytest.raises(IllegalTransitionError):
        await one.ship(order.id, Actor(support), "DHL", "JD", None)
    assert await refunding.finish_due() == 0
    gateway.poison = set()
    clock.now += timedelta(minutes=1)
    assert await refunding.finish_due() == 1
    refunded, replayed = await refunding.refund(request, order.id, "no", None, None)
    assert (refunded.status, replayed) == (OrderStatus.REFUNDED, True)
    async with database.connection() as connection:
        assert (await products.get(connection, product.id)).available == 1
