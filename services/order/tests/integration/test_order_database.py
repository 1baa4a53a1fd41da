"""Repositories and use cases of the Order service on the real PostgreSQL, several replicas at once."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import msgspec
import order_races
import pytest
import structlog
from chassis.cache import VersionedCache
from chassis.database import Database
from chassis.ids import uuid7
from chassis.valkey import PipelinedClient
from order.domain.errors import (
    IdempotencyKeyReusedError,
    IllegalTransitionError,
    NotFoundError,
    PaymentDeclinedError,
    PaymentProviderError,
    PaymentTimeoutError,
    RequestInProgressError,
    TooManyUnpaidOrdersError,
    TooMuchUnpaidError,
)
from order.domain.money import Money
from order.domain.order import Order, OrderStatus
from order.domain.product import Product
from order.domain.refund import RefundStatus
from order.domain.unpaid import UnpaidLimits
from order.gateways.bounded import BoundedGateway
from order.gateways.payment import ChargeOutcome, PaymentGateway, RefundOutcome
from order.gateways.payment_sandbox import PaymentSandbox
from order.repository import idempotency, orders, payments, products, queries
from order.repository.orders import OrderFilter
from order.repository.queries import PaymentStatus
from order.service import records
from order.service.catalog import CatalogUseCases
from order.service.orders import EXPIRY_BATCH, Actor, OrderUseCases, Reader
from order.service.payments import STUCK_BATCH, PaymentUseCases
from order.service.refunds import DUE_BATCH, RefundUseCases
from order.service.replay import IdempotentRequest, ReplayCache
from order.service.transitions import Caches, Transitions

from conftest import Platform
from devstack import postgres, services

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What was logged. Printed, dozens of stack traces would take a minute."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
async def database(platform: Platform) -> AsyncIterator[Database]:
    """A database of the test's own: what expires and settles here is nobody else's."""
    known = postgres.database_of("order", platform.secrets)
    own = replace(known, database=f"order_{uuid.uuid4().hex}")
    superuser = await platform.database("postgres")
    await postgres.prepare_one(platform.layout, platform.secrets, own)
    await postgres.migrate_one(platform.layout, platform.secrets, own, print)
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
                    transitions=Transitions(
                        Caches(
                            VersionedCache(client, "order:order:", 60),
                            VersionedCache(client, "order:product:", 60),
                        ),
                        clock,
                    ),
                    replays=ReplayCache(client, 60),
                    now=clock,
                    new_id=uuid7,
                    payment_window=timedelta(minutes=15),
                    unpaid=UnpaidLimits(orders=0, pieces=0, window=timedelta(0)),
                )
            )
        yield clock, made


async def new_product(database: Database, stock: int, name: str = "thing") -> Product:
    product = Product(uuid7(), f"I-{uuid.uuid4().hex[:20].upper()}", name, Money(100, "EUR"), stock, 1, 1, NOW)
    async with database.transaction() as connection:
        return await products.insert(connection, product)


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


async def test_a_page_of_large_orders_is_shorter_and_the_rest_is_below_it(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    """Or one address that asks for the largest pages keeps everybody else waiting while they are made."""
    clock, (one, _) = replicas
    user = uuid7()
    stock = [(await new_product(database, stock=100)).id for _ in range(50)]
    placed = []
    for number, lines in enumerate((50, 1, 50, 50, 50, 50, 50, 50, 1)):
        clock.now += timedelta(seconds=1)
        key = IdempotentRequest(user, f"page-{number:08}", hashlib.sha256(b"%d" % number).digest())
        order, _ = await one.create(key, [(product, 1) for product in stock[:lines]])
        placed.append((order.id, lines))
    pages: list[list[tuple[uuid.UUID, int]]] = []
    before, more = None, True
    while more:
        found, more = await one.page(OrderFilter(user_id=user), before, 100)
        pages.append([(order.id, len(order.lines)) for order in found])
        before = (found[-1].created_at, found[-1].id)
    assert [order for page in pages for order in page] == placed[::-1]
    assert [sum(lines for _, lines in page) for page in pages] == [201, 151]
    assert all(sum(lines for _, lines in page) <= orders.PAGE_LINES for page in pages)
    # A limit that ends the page first.
    found, more = await one.page(OrderFilter(user_id=user), None, 3)
    assert (len(found), more) == (3, True)


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
    sandbox, reference = PaymentSandbox(database), uuid7()
    assert await sandbox.charge(reference, Money(1, "EUR"), "tok_declined") is ChargeOutcome.DECLINED
    assert await sandbox.charge(reference, Money(1, "EUR"), "tok_approved") is ChargeOutcome.DECLINED
    assert await sandbox.resolve(reference) is ChargeOutcome.DECLINED


async def test_a_charge_that_was_resolved_before_it_arrived_takes_no_money(database: Database) -> None:
    sandbox, reference = PaymentSandbox(database), uuid7()
    assert await sandbox.resolve(reference) is ChargeOutcome.CLOSED
    assert await sandbox.charge(reference, Money(1, "EUR"), "tok_approved") is ChargeOutcome.CLOSED
    assert await sandbox.resolve(reference) is ChargeOutcome.CLOSED


async def test_the_service_role_has_rows_and_no_schema(database: Database) -> None:
    import asyncpg

    for statement in ("CREATE TABLE x (a int)", "DROP TABLE orders", "ALTER TABLE orders ADD COLUMN x int"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.connection() as connection:
                await connection.execute(statement)


async def test_what_happened_cannot_be_changed_by_the_service(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    import asyncpg

    clock, (one, _) = replicas
    product = await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(uuid7(), "key-order", b"h" * 32), [(product.id, 1)])
    paying = payments_of(database, one, clock, PaymentSandbox(database))
    await paying.pay(IdempotentRequest(order.user_id, "key-payment", b"p" * 32), order.id, "tok_approved", None)
    for statement in (
        "UPDATE order_transitions SET reason = 'x'", "DELETE FROM order_transitions", "TRUNCATE order_transitions",
        "UPDATE stock_changes SET delta = 0", "DELETE FROM stock_changes", "UPDATE order_items SET quantity = 1",
        "DELETE FROM order_items", "DELETE FROM orders", "UPDATE orders SET total_minor = 0",
        "UPDATE orders SET user_id = id", "DELETE FROM payments", "UPDATE payments SET order_id = order_id",
        "UPDATE payments SET payment_token = ''", "DELETE FROM refunds", "DELETE FROM products",
    ):  # fmt: skip
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.connection() as connection:
                await connection.execute(statement)
    with pytest.raises(asyncpg.RestrictViolationError):
        async with database.connection() as connection:
            await connection.execute("UPDATE payments SET status = 'failed'")


async def test_products_stored_before_there_was_a_search_key_are_made_findable(database: Database) -> None:
    mark = uuid.uuid4().hex
    product = await new_product(database, 1, f"İstanbul {mark}")
    catalog = CatalogUseCases(database=database, cache=None, now=Clock(), new_id=uuid7)  # type: ignore[arg-type]
    async with database.connection() as connection:
        await connection.execute("UPDATE products SET search_key = NULL")
        assert await products.page(connection, mark, None, 10) == []
        assert await catalog.fill_search_keys() == 1
        assert await products.page(connection, f"i̇stanbul {mark}", None, 10) == [product]


async def test_a_sum_of_orders_is_larger_than_any_of_them_may_be(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    _, (one, _) = replicas
    user = uuid7()
    async with database.connection() as connection:
        for _ in range(3):
            await connection.execute(
                "INSERT INTO orders VALUES ($1, $2, 'paid', 'EUR', $3, 1, now(), now(), now())", uuid7(), user, 2**62
            )
    assert (await one.summary(user, 0))[1] == [Money(3 * 2**62, "EUR")]


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


class SlowWay:
    """A provider on whose way back somebody else settles the attempt first."""

    def __init__(self, sandbox: PaymentGateway) -> None:
        self._sandbox = sandbox
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def charge(self, reference: uuid.UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        outcome = await self._sandbox.charge(reference, amount, payment_token)
        if self.meanwhile is not None:
            await self.meanwhile()
        return outcome

    async def resolve(self, reference: uuid.UUID) -> ChargeOutcome:
        return await self._sandbox.resolve(reference)

    async def refund(self, reference: uuid.UUID) -> RefundOutcome:
        return await self._sandbox.refund(reference)


@pytest.mark.parametrize("token", ["tok_approved", "tok_declined"])
async def test_an_outcome_that_somebody_else_recorded_is_answered_from_the_key(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]], token: str
) -> None:
    clock, (one, _) = replicas
    gateway = SlowWay(PaymentSandbox(database))
    paying = PaymentUseCases(
        database=database,
        transitions=one._transitions,
        replays=one._replays,
        gateway=gateway,
        now=clock,
        new_id=uuid7,
        answer_time=timedelta(seconds=1),
    )
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    request = IdempotentRequest(user, "key-payment", b"p" * 32)
    gateway.meanwhile = lambda: paying.settle_stuck(timedelta(seconds=-60))
    if token == "tok_declined":
        for _ in range(2):
            with pytest.raises(PaymentDeclinedError):
                await paying.pay(request, order.id, token, None)
    else:
        paid, _ = await paying.pay(request, order.id, token, None)
        again, replayed = await paying.pay(request, order.id, token, None)
        assert (paid.status, again, replayed) == (OrderStatus.PAID, paid, True)


async def test_a_payment_that_waited_for_the_same_payment_answers_as_it_did(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    """Two requests with one key, a few milliseconds apart: the second waits for the order, which is then paid."""
    clock, (one, two) = replicas
    gateway = SlowWay(PaymentSandbox(database))
    first, second = (
        PaymentUseCases(
            database=database,
            transitions=replica._transitions,
            replays=replica._replays,
            gateway=gateway,
            now=clock,
            new_id=uuid7,
            answer_time=timedelta(seconds=1),
        )
        for replica in (one, two)
    )
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    request = IdempotentRequest(user, "key-payment", b"p" * 32)
    waiting: list[asyncio.Task[tuple[Order, bool]]] = []

    async def while_the_order_is_locked() -> None:
        waiting.append(asyncio.create_task(second.pay(request, order.id, "tok_approved", None)))
        async with database.connection() as connection:
            while not await connection.fetch("SELECT FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)

    apply = one._transitions.apply

    async def slowly(*args: Any, **options: Any) -> Order:
        changed = await apply(*args, **options)
        await while_the_order_is_locked()
        return changed

    one._transitions.apply = slowly  # type: ignore[method-assign]
    paid, replayed = await first.pay(request, order.id, "tok_approved", None)
    assert (paid.status, replayed) == (OrderStatus.PAID, False)
    assert await waiting[0] == (paid, True)


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


def refunds_of(database: Database, one: OrderUseCases, clock: Clock, gateway: PaymentGateway) -> RefundUseCases:
    return RefundUseCases(database=database, transitions=one._transitions, gateway=gateway, now=clock)


def payments_of(database: Database, one: OrderUseCases, clock: Clock, gateway: PaymentGateway) -> PaymentUseCases:
    return PaymentUseCases(
        database=database,
        transitions=one._transitions,
        replays=one._replays,
        gateway=gateway,
        now=clock,
        new_id=uuid7,
        answer_time=timedelta(seconds=1),
    )


class Broken:
    """A provider of whom some references cannot be asked."""

    def __init__(self, sandbox: PaymentSandbox) -> None:
        self._sandbox = sandbox
        self.poison: set[uuid.UUID] = set()

    async def charge(self, reference: uuid.UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        return await self._sandbox.charge(reference, amount, payment_token)

    async def resolve(self, reference: uuid.UUID) -> ChargeOutcome:
        if reference in self.poison:
            raise ZeroDivisionError
        return await self._sandbox.resolve(reference)

    async def refund(self, reference: uuid.UUID) -> RefundOutcome:
        if reference in self.poison:
            raise ZeroDivisionError
        return await self._sandbox.refund(reference)


class Hanging:
    """A provider that takes every call and answers none."""

    async def charge(self, reference: uuid.UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        await self._for_ever()

    async def resolve(self, reference: uuid.UUID) -> ChargeOutcome:
        await self._for_ever()

    async def refund(self, reference: uuid.UUID) -> RefundOutcome:
        await self._for_ever()

    async def _for_ever(self) -> NoReturn:
        while True:
            await asyncio.Event().wait()


class Late:
    """A provider that was given up on and acts all the same, later; then it fails once, when it is asked again."""

    def __init__(self, sandbox: PaymentSandbox) -> None:
        self._sandbox = sandbox
        self.arrive: Callable[[], Awaitable[ChargeOutcome]] | None = None
        self.failures = 1

    async def charge(self, reference: uuid.UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        if self.arrive is None:
            self.arrive = lambda: self._sandbox.charge(reference, amount, payment_token)
            raise PaymentTimeoutError
        if self.failures:
            self.failures -= 1
            raise PaymentProviderError
        return await self._sandbox.charge(reference, amount, payment_token)

    async def resolve(self, reference: uuid.UUID) -> ChargeOutcome:
        return await self._sandbox.resolve(reference)

    async def refund(self, reference: uuid.UUID) -> RefundOutcome:
        return await self._sandbox.refund(reference)


@pytest.mark.parametrize("arrives", ["before the provider fails", "afterwards"])
async def test_a_charge_that_arrives_late_is_not_forgotten_when_the_provider_fails_meanwhile(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]], arrives: str
) -> None:
    clock, (one, _) = replicas
    gateway = Late(PaymentSandbox(database))
    paying = payments_of(database, one, clock, gateway)
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    request = IdempotentRequest(user, "key-payment", b"p" * 32)
    with pytest.raises(PaymentTimeoutError):
        await paying.pay(request, order.id, "tok_approved", None)
    assert gateway.arrive is not None
    clock.now += timedelta(seconds=2)
    if arrives == "afterwards":
        with pytest.raises(PaymentProviderError):
            await paying.pay(request, order.id, "tok_approved", None)
        await gateway.arrive()
    else:
        await gateway.arrive()
    paid, _ = await paying.pay(request, order.id, "tok_approved", None)
    assert paid.status is OrderStatus.PAID
    async with database.connection() as connection:
        taken = await connection.fetch("SELECT reference FROM payment_sandbox_charges WHERE approved")
        recorded = await connection.fetch("SELECT id FROM payments WHERE status = 'approved'")
    assert [row["reference"] for row in taken] == [row["id"] for row in recorded]
    assert len(taken) == 1


class Scripted:
    """A provider that answers from a list, whatever it is asked; an exception is raised."""

    def __init__(self, *answers: ChargeOutcome | BaseException) -> None:
        self._answers = list(answers)

    async def charge(self, reference: uuid.UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        return self._next()

    async def resolve(self, reference: uuid.UUID) -> ChargeOutcome:
        return self._next()

    async def refund(self, reference: uuid.UUID) -> RefundOutcome:
        raise AssertionError

    def _next(self) -> ChargeOutcome:
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


async def test_nobody_is_told_that_nothing_was_charged_unless_the_provider_says_so(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    """The first call has charged and its answer was lost; then the provider fails at everything, then it is back."""
    clock, (one, _) = replicas
    gateway = Scripted(PaymentTimeoutError(), PaymentProviderError(), PaymentProviderError(), ChargeOutcome.APPROVED)
    paying = payments_of(database, one, clock, gateway)
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    request = IdempotentRequest(user, "key-payment", b"p" * 32)
    for _ in range(2):
        with pytest.raises(PaymentTimeoutError):
            await paying.pay(request, order.id, "tok_approved", None)
        clock.now += timedelta(seconds=2)
    assert (await paying.pay(request, order.id, "tok_approved", None))[0].status is OrderStatus.PAID


async def test_a_charge_that_was_closed_by_a_process_that_died_is_not_a_declined_one(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    """The provider failed and has closed the attempt, which nobody lived to record: the key may try again."""
    clock, (one, _) = replicas
    sandbox = PaymentSandbox(database)
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    request = IdempotentRequest(user, "key-payment", b"p" * 32)
    with pytest.raises(PaymentTimeoutError):
        await payments_of(database, one, clock, Scripted(PaymentTimeoutError())).pay(
            request, order.id, "tok_approved", None
        )
    async with database.connection() as connection:
        attempt = await payments.processing(connection, order.id)
    assert attempt is not None
    await sandbox.resolve(attempt.id)
    clock.now += timedelta(seconds=2)
    paying = payments_of(database, one, clock, sandbox)
    with pytest.raises(RequestInProgressError):
        await paying.pay(request, order.id, "tok_approved", None)
    paid, replayed = await paying.pay(request, order.id, "tok_approved", None)
    assert (paid.status, replayed) == (OrderStatus.PAID, False)


@pytest.mark.parametrize(
    ("first", "then", "contradicts"),
    [
        (ChargeOutcome.CLOSED, ChargeOutcome.APPROVED, True),
        (ChargeOutcome.DECLINED, ChargeOutcome.APPROVED, True),
        (ChargeOutcome.APPROVED, ChargeOutcome.DECLINED, True),
        (ChargeOutcome.APPROVED, ChargeOutcome.CLOSED, True),
        (ChargeOutcome.APPROVED, ChargeOutcome.APPROVED, False),
        (ChargeOutcome.CLOSED, ChargeOutcome.DECLINED, False),
    ],
)
async def test_a_provider_that_contradicts_itself_about_money_is_reported(
    database: Database,
    replicas: tuple[Clock, list[OrderUseCases]],
    logged: list[Any],
    first: ChargeOutcome,
    then: ChargeOutcome,
    *,
    contradicts: bool,
) -> None:
    """The sweep has an answer while the payment waits for its own, which is another one. The first stays."""
    clock, (one, _) = replicas
    sweep = payments_of(database, one, clock, Scripted(first))
    gateway = SlowWay(Scripted(then))
    gateway.meanwhile = lambda: sweep.settle_stuck(timedelta(seconds=-60))
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    request = IdempotentRequest(user, "key-payment", b"p" * 32)
    paying = payments_of(database, one, clock, gateway).pay(request, order.id, "tok_approved", None)
    match first:
        case ChargeOutcome.APPROVED:
            assert (await paying)[0].status is OrderStatus.PAID
        case ChargeOutcome.DECLINED:
            with pytest.raises(PaymentDeclinedError):
                await paying
        case ChargeOutcome.CLOSED:
            with pytest.raises(RequestInProgressError):
                await paying
    errors = [entry for entry in logged if entry["log_level"] == "error"]
    assert [entry["event"] for entry in errors] == ["payment provider contradicts itself"] * contradicts
    found = await one.get(order.id, Reader(str(user)))
    assert found.status is (OrderStatus.PAID if first is ChargeOutcome.APPROVED else OrderStatus.PENDING_PAYMENT)


async def test_payments_that_are_never_answered_take_their_turns_with_others(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    """A batch of them takes longer than they are put off for: who has never been asked about comes first."""
    clock, (one, _) = replicas
    asked: list[uuid.UUID] = []

    class Silent(Hanging):
        async def resolve(self, reference: uuid.UUID) -> NoReturn:
            asked.append(reference)
            clock.now += timedelta(seconds=1)
            raise PaymentTimeoutError

    product, begun = await new_product(database, stock=100), []
    for number in range(STUCK_BATCH + 5):
        order, _ = await one.create(IdempotentRequest(uuid7(), f"key-{number:08}", b"h" * 32), [(product.id, 1)])
        attempt = payments.Attempt(uuid7(), order.id, order.user_id, f"pay-{number:08}", "tok_approved")
        async with database.transaction() as connection:
            await payments.begin(connection, attempt, clock.now)
        clock.now += timedelta(milliseconds=1)
        begun.append(attempt.id)
    clock.now += timedelta(minutes=1)
    claim, batches = payments.claim_stuck, 0

    async def twice(*args: Any) -> list[payments.Attempt]:
        nonlocal batches
        batches += 1
        return await claim(*args) if batches <= 2 else []

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(payments, "claim_stuck", twice)
        await payments_of(database, one, clock, Silent()).settle_stuck(timedelta(seconds=30))
    assert set(asked) == set(begun)


async def test_a_provider_that_never_answers_keeps_nobody_waiting(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    clock, (one, _) = replicas
    gateway = BoundedGateway(Hanging(), 0.05)
    paying, refunding = payments_of(database, one, clock, gateway), refunds_of(database, one, clock, gateway)
    calm = payments_of(database, one, clock, PaymentSandbox(database))
    user, product = uuid7(), await new_product(database, stock=2)
    open_one, paid_one = [
        (await one.create(IdempotentRequest(user, f"key-order-{n}", b"o" * 32), [(product.id, 1)]))[0] for n in range(2)
    ]
    with pytest.raises(PaymentTimeoutError):
        await paying.pay(IdempotentRequest(user, "key-payment", b"p" * 32), open_one.id, "tok_approved", None)
    await calm.pay(IdempotentRequest(user, "key-calm", b"p" * 32), paid_one.id, "tok_approved", None)
    refund = IdempotentRequest(user, "key-refund", b"r" * 32)
    assert (await refunding.refund(refund, paid_one.id, "no", None, None))[0].status is OrderStatus.REFUNDING
    clock.now += timedelta(minutes=1)
    assert await paying.settle_stuck(timedelta(seconds=30)) == 0
    assert await refunding.finish_due() == 0
    assert (await one.get(open_one.id, Reader(str(user)))).status is OrderStatus.PENDING_PAYMENT
    async with database.connection() as connection:
        assert (await payments.processing(connection, open_one.id)) is not None


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


async def test_the_database_keeps_a_second_approved_payment_of_an_order_out(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    import asyncpg

    clock, (one, _) = replicas
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    for _ in range(2):
        async with database.transaction() as connection:
            attempt = payments.Attempt(uuid7(), order.id, user, "key-payment", "tok_approved")
            await payments.begin(connection, attempt, clock.now)
        if not await _approved(database, order.id):
            async with database.transaction() as connection:
                assert await payments.finish(connection, attempt.id, PaymentStatus.APPROVED, clock.now) is None
    with pytest.raises(asyncpg.UniqueViolationError):
        async with database.transaction() as connection:
            await payments.finish(connection, attempt.id, PaymentStatus.APPROVED, clock.now)


async def _approved(database: Database, order_id: uuid.UUID) -> uuid.UUID | None:
    async with database.connection() as connection:
        return await payments.approved_id(connection, order_id)


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


async def test_open_payments_of_older_orders_keep_no_other_order_from_expiring(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    clock, (one, _) = replicas
    product, older = await new_product(database, stock=200), []
    for number in range(EXPIRY_BATCH + 5):
        order, _ = await one.create(IdempotentRequest(uuid7(), f"key-{number:08}", b"h" * 32), [(product.id, 1)])
        older.append(order.id)
        async with database.transaction() as connection:
            attempt = payments.Attempt(uuid7(), order.id, order.user_id, f"pay-{number:08}", "tok_approved")
            await payments.begin(connection, attempt, clock.now)
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
            attempt = payments.Attempt(uuid7(), order.id, user, "key-payment", "tok_approved")
            await payments.begin(connection, attempt, clock.now)
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


async def test_payments_and_refunds_that_cannot_be_finished_keep_no_other_from_it(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    clock, (one, _) = replicas
    gateway = Broken(PaymentSandbox(database))
    paying, refunding = payments_of(database, one, clock, gateway), refunds_of(database, one, clock, gateway)
    product, last = await new_product(database, stock=200), None
    count = max(STUCK_BATCH, DUE_BATCH) + 5
    for number in range(count):
        order, _ = await one.create(IdempotentRequest(uuid7(), f"key-{number:08}", b"h" * 32), [(product.id, 1)])
        last = payments.Attempt(uuid7(), order.id, order.user_id, f"pay-{number:08}", "tok_approved")
        async with database.transaction() as connection:
            await payments.begin(connection, last, clock.now)
        await gateway.charge(last.id, order.total, "tok_approved")
        if number < count - 1:
            gateway.poison.add(last.id)
    clock.now += timedelta(minutes=1)
    assert last is not None
    assert await paying.settle_stuck(timedelta(seconds=30)) == 1
    anybody = Reader(str(uuid7()), sees_any=True)
    assert (await one.get(last.order_id, anybody)).status is OrderStatus.PAID
    poison, gateway.poison = gateway.poison, set()
    clock.now += timedelta(minutes=5)
    assert await paying.settle_stuck(timedelta(seconds=30)) == count - 1
    async with database.connection() as connection:
        found, _ = await orders.page(connection, orders.OrderFilter(), None, 100)
        for order in found:
            gateway.poison = {row["id"] for row in await connection.fetch("SELECT id FROM payments")}
            with pytest.raises(ZeroDivisionError):
                await refunding.refund(
                    IdempotentRequest(uuid.UUID(anybody.user_id), f"refund-{order.id}", b"r" * 32),
                    order.id,
                    "no",
                    None,
                    None,
                )
    gateway.poison = poison
    clock.now += timedelta(minutes=1)
    assert await refunding.finish_due() == 1
    assert (await one.get(last.order_id, anybody)).status is OrderStatus.REFUNDED


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


async def test_races_of_every_pair_of_transitions_leave_everything_in_agreement(platform: Platform) -> None:
    """A small part of `tools/order_races.py`."""
    async with order_races.arena(platform.layout, platform.secrets) as where:
        report = await order_races.run(where, rounds=2, seed=8)
    assert report.violations == []
    assert report.rounds == 2 * len(order_races.PAIRS)
    assert {"shipped", "delivered", "cancelled", "expired", "refunded"} <= set(report.ends)
