"""Repositories and use cases of the Order service on the real PostgreSQL, several replicas at once."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from chassis.cache import VersionedCache
from chassis.database import Database
from chassis.ids import uuid7
from chassis.valkey import PipelinedClient
from order_service.domain.errors import (
    IdempotencyKeyReusedError,
    NotFoundError,
    PaymentDeclinedError,
    RequestInProgressError,
)
from order_service.domain.money import Money
from order_service.domain.order import OrderStatus
from order_service.domain.product import Product
from order_service.gateways.payment import Outcome as Charge
from order_service.gateways.payment_sandbox import PaymentSandbox
from order_service.repository import idempotency, orders, products
from order_service.service.orders import Actor, Caches, OrderUseCases
from order_service.service.payments import PaymentUseCases
from order_service.service.replay import Keyed, ReplayCache

from conftest import Platform
from devstack import postgres, services

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
async def database(platform: Platform) -> AsyncIterator[Database]:
    """A database of the test's own: what expires and settles here is nobody else's."""
    known = next(d for d in postgres.databases(platform.secrets) if d.service == "order")
    own = replace(known, database=f"order_{uuid.uuid4().hex}")
    superuser = await platform.database("postgres")
    await postgres._ensure_database(superuser, own)
    await postgres._migrate_one(platform.layout, platform.secrets, own)
    made = Database(own.url(platform.layout), min_size=1, max_size=8, service="test")
    await made.open()
    yield made
    await made.close()
    await superuser.execute(f"DROP DATABASE {own.database}")
    await superuser.close()


@pytest.fixture
async def replicas(platform: Platform, database: Database) -> AsyncIterator[tuple[Clock, list[OrderUseCases]]]:
    """Two replicas of the use cases and the clock both go by."""
    clock = Clock()
    made = []
    async with AsyncExitStack() as stack:
        for _ in range(2):
            client = PipelinedClient(services.valkey_url(platform.layout, platform.secrets))
            stack.push_async_callback(client.close)
            made.append(
                OrderUseCases(
                    database=database,
                    caches=Caches(
                        VersionedCache(client, "order:order:", 60),
                        VersionedCache(client, "order:product:", 60),
                    ),
                    replays=ReplayCache(client, 60),
                    gateway=PaymentSandbox(database, 1),
                    now=clock,
                    new_id=uuid7,
                    payment_window=timedelta(minutes=15),
                )
            )
        yield clock, made


async def new_product(database: Database, stock: int, name: str = "thing") -> Product:
    product = Product(uuid7(), f"I-{uuid.uuid4().hex[:20].upper()}", name, Money(100, "EUR"), stock, 1, NOW)
    async with database.transaction() as connection:
        return await products.insert(connection, product)


async def test_several_replicas_expire_each_order_once_and_give_its_stock_back_once(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    clock, (one, two) = replicas
    user, product = uuid7(), await new_product(database, stock=200)
    for number in range(120):
        key = Keyed(user, f"key-{number:08}", hashlib.sha256(b"%d" % number).digest())
        await one.create(key, [(product.id, 1)])
    clock.now += timedelta(minutes=16)
    expired = 0
    while found := await asyncio.gather(one.expire(), two.expire(), one.expire(), two.expire()):
        expired += sum(found)
        if not any(found):
            break
    assert expired == 120
    async with database.connection() as connection:
        mine = await orders.page(connection, orders.OrderFilter(user_id=user), None, 200)
        assert {(order.status, order.version) for order in mine} == {(OrderStatus.EXPIRED, 2)}
        assert (await products.get(connection, product.id)).available == 200


async def test_a_key_in_use_is_said_so_at_once_and_not_waited_for(database: Database) -> None:
    user, key, digest = uuid7(), "key-in-use", b"h" * 32
    async with database.transaction() as first, database.transaction() as second:
        assert await idempotency.claim(first, user, key, digest) is None
        with pytest.raises(RequestInProgressError):
            await idempotency.claim(second, user, key, digest)
        await idempotency.record(first, user, key, digest, b"answer", NOW)
    async with database.transaction() as later:
        assert await idempotency.claim(later, user, key, digest) == b"answer"
        with pytest.raises(IdempotencyKeyReusedError):
            await idempotency.claim(later, user, key, b"x" * 32)


async def test_a_rolled_back_first_try_leaves_the_key_free(database: Database) -> None:
    user, key, digest = uuid7(), "key-rolled-back", b"h" * 32
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as connection:
            await idempotency.claim(connection, user, key, digest)
            await idempotency.record(connection, user, key, digest, b"answer", NOW)
            raise ZeroDivisionError
    async with database.transaction() as connection:
        assert await idempotency.claim(connection, user, key, digest) is None


async def test_a_search_takes_wildcards_literally(database: Database) -> None:
    mark = uuid.uuid4().hex
    for name in (f"{mark} 100% wool", f"{mark} 100x wool", f"{mark} a_b", f"{mark} AxB", f"{mark} back\\slash"):
        await new_product(database, 1, name)

    async def search(text: str) -> list[str]:
        async with database.connection() as connection:
            found = await products.page(connection, f"{mark} {text}", None, 10)
        return [product.name.removeprefix(mark + " ") for product in found]

    assert await search("100%") == ["100% wool"]
    assert await search("a_B") == ["a_b"]
    assert await search("back\\") == ["back\\slash"]
    assert await search("AX") == ["AxB"]


async def test_pages_follow_each_other_without_gap_or_repetition(database: Database) -> None:
    mark = uuid.uuid4().hex
    # The same name twice: the id decides.
    names = [f"{mark} {letter}" for letter in "aabbc"]
    for name in names:
        await new_product(database, 1, name)
    seen: list[Product] = []
    after = None
    while True:
        async with database.connection() as connection:
            page = await products.page(connection, mark, after, 2)
        if not page:
            break
        seen += page
        after = (page[-1].name, page[-1].id)
    assert [product.name for product in seen] == names
    assert len({product.id for product in seen}) == 5


async def test_the_sandbox_charges_a_reference_once_whatever_is_asked_again(database: Database) -> None:
    sandbox, reference = PaymentSandbox(database, 1), uuid7()
    assert await sandbox.find(reference) is None
    assert await sandbox.charge(reference, Money(1, "EUR"), "tok_declined") is Charge.DECLINED
    assert await sandbox.charge(reference, Money(1, "EUR"), "tok_approved") is Charge.DECLINED
    assert await sandbox.find(reference) is Charge.DECLINED


async def test_the_service_role_has_rows_and_no_schema(database: Database) -> None:
    import asyncpg

    for statement in ("CREATE TABLE x (a int)", "DROP TABLE orders", "ALTER TABLE orders ADD COLUMN x int"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.connection() as connection:
                await connection.execute(statement)


async def test_nobody_sees_a_strangers_order(database: Database, replicas: tuple[Clock, list[OrderUseCases]]) -> None:
    _, (one, _) = replicas
    product = await new_product(database, stock=1)
    order, replayed = await one.create(Keyed(uuid7(), "key-stranger", b"h" * 32), [(product.id, 1)])
    assert not replayed
    with pytest.raises(NotFoundError):
        await one.get(order.id, Actor(uuid7()))
    assert await one.get(order.id, Actor(uuid7(), sees_any=True)) == order


class SlowWay:
    """The sandbox, on whose way back somebody else settles the attempt first."""

    def __init__(self, sandbox: PaymentSandbox) -> None:
        self._sandbox = sandbox
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def charge(self, reference: uuid.UUID, amount: Money, payment_token: str) -> Charge:
        outcome = await self._sandbox.charge(reference, amount, payment_token)
        if self.meanwhile is not None:
            await self.meanwhile()
        return outcome

    async def find(self, reference: uuid.UUID) -> Charge | None:
        return await self._sandbox.find(reference)

    async def refund(self, reference: uuid.UUID) -> None:
        await self._sandbox.refund(reference)


@pytest.mark.parametrize("token", ["tok_approved", "tok_declined"])
async def test_an_outcome_that_somebody_else_recorded_is_answered_from_the_key(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]], token: str
) -> None:
    clock, (one, _) = replicas
    gateway = SlowWay(PaymentSandbox(database, 1))
    payments = PaymentUseCases(
        database=database,
        caches=one._caches,
        replays=one._replays,
        gateway=gateway,
        now=clock,
        new_id=uuid7,
        answer_time=timedelta(seconds=1),
    )
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(Keyed(user, "key-order", b"o" * 32), [(product.id, 1)])
    request = Keyed(user, "key-payment", b"p" * 32)
    gateway.meanwhile = lambda: payments.settle_stuck(timedelta(seconds=-60))
    with pytest.raises(RequestInProgressError):
        await payments.pay(request, order.id, token, None)
    gateway.meanwhile = None
    if token == "tok_declined":
        with pytest.raises(PaymentDeclinedError):
            await payments.pay(request, order.id, token, None)
    else:
        paid, replayed = await payments.pay(request, order.id, token, None)
        assert (paid.status, replayed) == (OrderStatus.PAID, True)
