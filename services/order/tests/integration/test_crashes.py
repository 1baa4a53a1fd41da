"""A process that dies before any one of its steps: what it had begun is finished once, by a retry or by the sweep."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import order_races
import pytest
from chassis.audit import trail
from chassis.audit.trail import Filter
from chassis.database import Database
from chassis.ids import uuid7
from chassis.valkey import PipelinedClient
from order.domain.money import Money
from order.domain.order import Order, OrderStatus
from order.gateways.payment_sandbox import PaymentSandbox
from order.repository.orders import OrderFilter
from order.service.orders import Reader
from order.service.replay import IdempotentRequest

from conftest import Platform
from devstack import services

STOCK = 10
ANYBODY = Reader(str(uuid7()), sees_any=True)


class DiedError(BaseException):
    """What a process does not live to catch."""


class Process:
    """One that dies before its step of this number; what it has committed, sent or asked for before has happened."""

    def __init__(self, last: int) -> None:
        self._left = last

    def step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise DiedError


class Stepping:
    """Something of which each call is a step of a process. That its answer is lost is the death before the next one."""

    def __init__(self, inner: Any, process: Process) -> None:
        self._inner, self._process = inner, process

    def record(self, *event: Any) -> None:
        """No step: it is written with the commit."""
        self._inner.record(*event)

    def audit(self, *act: Any, **values: Any) -> None:
        """No step either."""
        self._inner.audit(*act, **values)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any) -> Any:
            self._process.step()
            return await getattr(self._inner, name)(*args)

        return call


class SteppingDatabase:
    """The database, with a step before each statement, before each commit, and after it."""

    def __init__(self, database: Database, process: Process) -> None:
        self._database, self._process = database, process

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Stepping]:
        async with self._database.connection() as connection:
            yield Stepping(connection, self._process)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Stepping]:
        async with self._database.transaction() as connection:
            yield Stepping(connection, self._process)
            self._process.step()
        self._process.step()


@dataclass(frozen=True, slots=True)
class Scene:
    """An order in the status where the operation begins, and the request, which is always the same."""

    user: uuid.UUID
    product: uuid.UUID
    order: uuid.UUID
    operation: str

    async def run(self, by: order_races.Replica) -> tuple[Order, bool]:
        request = IdempotentRequest(self.user, f"key-{self.operation}", b"r" * 32)
        match self.operation:
            case "create":
                return await by.orders.create(request, [(self.product, 2)])
            case "pay":
                return await by.payments.pay(request, self.order, "tok_approved", None)
            case _:
                return await by.refunds.refund(request, self.order, "no", None, None)


ENDS = {"create": OrderStatus.PENDING_PAYMENT, "pay": OrderStatus.PAID, "refund": OrderStatus.REFUNDED}
PIECES_OUT = {"create": 3, "pay": 1, "refund": 0}


async def prepared(arena: order_races.Arena, operation: str) -> Scene:
    calm, user = arena.replicas[0], uuid7()
    price = Money(100, "EUR")
    product = await calm.catalog.create(f"C-{uuid.uuid4().hex[:30].upper()}", "thing", price, STOCK, user)
    order, _ = await calm.orders.create(IdempotentRequest(user, "key-before", b"b" * 32), [(product.id, 1)])
    if operation == "refund":
        await calm.payments.pay(IdempotentRequest(user, "key-paid", b"p" * 32), order.id, "tok_approved", None)
    return Scene(user, product.id, order.id, operation)


async def check(arena: order_races.Arena, scene: Scene, answered: Order) -> None:
    calm = arena.replicas[0]
    orders, _ = await calm.orders.page(OrderFilter(user_id=scene.user), None, 10)
    assert len(orders) == (2 if scene.operation == "create" else 1)
    assert (await calm.catalog.get(scene.product)).available == STOCK - PIECES_OUT[scene.operation]
    order = await calm.orders.get(answered.id, ANYBODY)
    assert order == answered
    assert order.status is ENDS[scene.operation]
    steps = await calm.orders.history(order.id)
    assert [step.version for step in steps] == list(range(1, order.version + 1))
    async with arena.database.connection() as connection:
        charges = await connection.fetch(
            "SELECT approved, refunded, status FROM payments LEFT JOIN payment_sandbox_charges ON reference = id "
            "WHERE order_id = $1",
            order.id,
        )
        acts = await trail.page(connection, Filter(subject=f"order/{order.id}"), None, 10)
    assert sorted(act.action for act in acts) == (
        ["order.refund_requested", "order.refunded"] if scene.operation == "refund" else []
    )
    taken = [charge for charge in charges if charge["approved"]]
    assert len(taken) == (0 if scene.operation == "create" else 1)
    assert [charge["status"] for charge in taken] == ["approved"] * len(taken)
    assert all(charge["refunded"] is (scene.operation == "refund") for charge in taken)


@pytest.mark.parametrize("operation", ["create", "pay", "refund"])
async def test_a_process_may_die_before_every_step(platform: Platform, operation: str) -> None:
    client = PipelinedClient(services.valkey_url(platform.layout, platform.secrets))
    async with order_races.arena(platform.layout, platform.secrets) as arena:
        for last, first in ((last, first) for last in count() for first in ("sweep", "retry")):
            scene, process = await prepared(arena, operation), Process(last)
            dying = order_races.replica(
                SteppingDatabase(arena.database, process),  # type: ignore[arg-type]
                Stepping(client, process),  # type: ignore[arg-type]
                Stepping(PaymentSandbox(arena.database), process),  # type: ignore[arg-type]
            )
            died = True
            with suppress(DiedError):
                await scene.run(dying)
                died = False
            if first == "sweep":
                await order_races.sweep_everything(arena, closely=True)
            answered, _ = await scene.run(arena.replicas[0])
            await check(arena, scene, answered)
            assert await scene.run(arena.replicas[0]) == (answered, True)
            if not died:
                break
    await client.close()
    # After fewer, not every place has been looked at where one can die.
    assert last >= {"create": 9, "pay": 19, "refund": 19}[operation]
