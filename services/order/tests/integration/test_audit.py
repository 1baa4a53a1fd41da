"""What the Order service keeps in its audit trail, and that the trail loses nothing and changes nothing."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from chassis import context
from chassis.audit import acts, retention, trail
from chassis.audit.acts import Act
from chassis.audit.answers import AuditHandlers
from chassis.audit.retention import Retention
from chassis.audit.trail import Filter
from chassis.cache import VersionedCache
from chassis.context import RequestContext
from chassis.database import Database
from chassis.identity import Caller
from chassis.ids import uuid7
from contracts.common.v1 import audit_pb2
from order.domain.errors import IllegalTransitionError, SkuTakenError, StaleVersionError, StockBelowZeroError
from order.domain.money import Money
from order.gateways.payment_sandbox import PaymentSandbox
from order.service.catalog import CatalogUseCases
from order.service.orders import OrderUseCases
from order.service.replay import IdempotentRequest
from order_use_cases import Clock, new_product, payments_of, refunds_of
from payment_providers import Away

Replicas = tuple[Clock, list[OrderUseCases]]


def asked_by(user_id: uuid.UUID) -> RequestContext:
    """A request of somebody, from somewhere."""
    return RequestContext("request-1", caller=Caller(str(user_id), "session", ("admin",)), address="203.0.113.7")


def request(user: uuid.UUID) -> IdempotentRequest:
    key = uuid.uuid4().hex
    return IdempotentRequest(user, key, key.encode())


async def kept(database: Database, subject: str = "") -> list[Act]:
    """What the trail has, eldest first."""
    async with database.connection() as connection:
        return (await trail.page(connection, Filter(subject=subject or None), None, 1000))[::-1]


def said(found: Sequence[Act]) -> list[tuple[str, str, acts.Values, acts.Values]]:
    return [(act.action, act.actor, act.before, act.after) for act in found]


def catalog_of(database: Database, replicas: Replicas) -> CatalogUseCases:
    clock, (one, _) = replicas
    cache: VersionedCache = one._transitions.caches.products
    return CatalogUseCases(database=database, cache=cache, now=clock, new_id=uuid7)


async def test_prices_and_stock_are_kept_once_with_who_changed_them_and_from_what(
    database: Database, replicas: Replicas, logged: list[Any]
) -> None:
    clock, _ = replicas
    catalog, admin = catalog_of(database, replicas), uuid7()
    with context.serving(asked_by(admin)):
        product = await catalog.create("A-1", "thing", Money(1990, "EUR"), 5, admin)
        # Neither what is refused, nor what changes nothing that matters, nor an answer again.
        with pytest.raises(SkuTakenError):
            await catalog.create("A-1", "thing", Money(1, "EUR"), 5, admin)
        with pytest.raises(StaleVersionError):
            await catalog.update(product.id, None, Money(1, "EUR"), 7)
        with pytest.raises(StockBelowZeroError):
            await catalog.adjust_stock(request(admin), product.id, -6, "counted")
        await catalog.update(product.id, "other thing", Money(1990, "EUR"), None)
        clock.now += timedelta(seconds=1)
        await catalog.update(product.id, None, Money(2490, "USD"), None)
        clock.now += timedelta(seconds=1)
        adjusting = request(admin)
        for _ in range(3):
            await catalog.adjust_stock(adjusting, product.id, -2, "two were broken")
    found = await kept(database)
    by = f"user/{admin}"
    assert said(found) == [
        ("product.created", by, {}, {"sku": "A-1", "amount_minor": 1990, "currency": "EUR", "available": 5}),
        (
            "product.price_changed",
            by,
            {"amount_minor": 1990, "currency": "EUR"},
            {"amount_minor": 2490, "currency": "USD"},
        ),
        ("product.stock_changed", by, {"available": 5}, {"available": 3, "reason": "two were broken"}),
    ]
    assert {(act.subject, act.request_id, act.address) for act in found} == {
        (f"product/{product.id}", "request-1", "203.0.113.7")
    }
    # Each is a line of the log as well, of the same id.
    lines = [entry for entry in logged if entry["event"] == "audit"]
    assert [(line["audit_id"], line["action"]) for line in lines] == [(str(act.id), act.action) for act in found]


async def test_a_refund_is_kept_when_it_is_asked_for_and_when_the_money_is_back(
    database: Database, replicas: Replicas
) -> None:
    clock, (one, _) = replicas
    sandbox, customer, staff = PaymentSandbox(database), uuid7(), uuid7()
    product = await new_product(database, stock=5)
    order, _ = await one.create(request(customer), [(product.id, 2)])
    refunding = request(staff)
    with context.serving(asked_by(staff)):
        with pytest.raises(IllegalTransitionError):
            await refunds_of(database, one, clock, sandbox).refund(request(staff), order.id, "no", None, None)
        await payments_of(database, one, clock, sandbox).pay(request(customer), order.id, "tok_approved", None)
        for _ in range(2):
            await refunds_of(database, one, clock, Away(sandbox)).refund(refunding, order.id, "broken", None, None)
    # An order, its payment, and what is refused are no acts.
    (asked,) = await kept(database)
    # The provider gives the money back later, when nobody asks any more.
    clock.now += timedelta(hours=2)
    assert await refunds_of(database, one, clock, sandbox).finish_due() == 1
    with context.serving(asked_by(staff)):
        _, replayed = await refunds_of(database, one, clock, sandbox).refund(refunding, order.id, "broken", None, None)
    assert replayed
    found = await kept(database, f"order/{order.id}")
    assert said(found) == [
        (
            "order.refund_requested",
            f"user/{staff}",
            {"status": "paid"},
            {"status": "refunding", "amount_minor": 200, "currency": "EUR", "restock": True, "reason": "broken"},
        ),
        (
            "order.refunded",
            f"user/{staff}",
            {"status": "refunding"},
            {"status": "refunded", "amount_minor": 200, "currency": "EUR", "restock": True},
        ),
    ]
    assert [(act.request_id, act.address) for act in found] == [("request-1", "203.0.113.7"), ("", "")]
    assert found[0] == asked


async def test_what_is_rolled_back_was_not_done(database: Database, logged: list[Any]) -> None:
    """Not even what was rolled back at the last moment, by its commit."""

    async def change(statement: str = "") -> None:
        async with database.transaction() as connection:
            connection.audit("product.price_changed", "product/1", datetime.now(UTC))
            if statement:
                await connection.execute(statement)
            else:
                raise LookupError

    with pytest.raises(LookupError):
        await change()
    with pytest.raises(asyncpg.DivisionByZeroError):
        await change("SELECT 1/0")
    assert await kept(database) == []
    assert [entry for entry in logged if entry["event"] == "audit"] == []


async def test_the_services_role_adds_and_reads_and_does_nothing_else(database: Database) -> None:
    async with database.transaction() as connection:
        connection.audit("product.price_changed", "product/1", datetime.now(UTC), after={"amount_minor": 5})
    for statement in (
        "UPDATE audit SET actor = 'user/2'",
        "UPDATE audit SET after = '{}'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "DROP TABLE audit",
        "ALTER TABLE audit DISABLE TRIGGER ALL",
        "CREATE OR REPLACE FUNCTION forget_audit(most integer) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "SELECT * FROM audit FOR UPDATE",
        "INSERT INTO audit SELECT * FROM audit ON CONFLICT (id) DO UPDATE SET actor = 'user/2'",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.connection() as connection:
                await connection.execute(statement)
    (act,) = await kept(database)
    assert (act.actor, act.after) == ("service/test", {"amount_minor": 5})


async def test_what_is_older_than_the_retention_goes_in_batches_and_nothing_else_does(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    monkeypatch.setattr(retention, "_PAUSE_SECONDS", 0)
    now = datetime.now(UTC)
    ages = [401, 500, 399, 402, 450, 0, 1000, 460]
    async with database.transaction() as connection:
        for age in ages:
            connection.audit("product.price_changed", f"product/{age}", now - timedelta(days=age))
    # Both replicas at once.
    forgotten = await asyncio.gather(*(Retention(database).forget() for _ in range(2)))
    assert sum(forgotten) == 6
    assert [act.subject for act in await kept(database)] == ["product/399", "product/0"]


async def pages(database: Database, where: audit_pb2.AuditFilter | None = None, limit: int = 7) -> list[str]:
    """The ids of all pages, as a caller turns them."""
    answers, found, before = AuditHandlers(database), [], None
    while True:
        asked = audit_pb2.ListAuditRecordsRequest(limit=limit, before_id=before, filter=where)
        page = (await answers.ListAuditRecords(asked, None)).records
        found += [record.id for record in page]
        if len(page) < limit:
            return found
        before = page[-1].id
        await asyncio.sleep(0)


async def test_pages_skip_and_repeat_nothing_while_others_write(database: Database) -> None:
    """Many of the same millisecond, so that pages end between them."""
    began = datetime.now(UTC)

    async def write(number: int) -> None:
        async with database.transaction() as connection:
            for step in range(4):
                connection.audit("product.price_changed", f"product/{number}-{step}", began + timedelta(seconds=number))

    await asyncio.gather(*(write(number) for number in range(15)))
    before = [str(act.id) for act in await kept(database)][::-1]
    assert len(before) == 60
    stop = asyncio.Event()

    async def writing() -> int:
        number = 100
        while not stop.is_set():
            await write(number)
            number += 1
        return number

    others = asyncio.create_task(writing())
    try:
        for _ in range(5):
            turned = await pages(database)
            # What was there when the first page was read is there once, in its order; above it is what others wrote meanwhile.
            assert turned[-60:] == before
            assert turned == sorted(set(turned), reverse=True)
    finally:
        stop.set()
    assert await others > 100


async def test_filters_find_what_they_say(database: Database) -> None:
    noon = datetime(2026, 11, 27, 12, 0, 0, 500, tzinfo=UTC)
    written = [
        ("product.price_changed", "product/1", "user/1", timedelta(0)),
        ("product.price_changed", "product/2", "user/2", timedelta(microseconds=1)),
        ("product.stock_changed", "product/1", "user/2", timedelta(hours=1)),
        ("order.refunded", "order/1", "service/order", timedelta(days=1)),
    ]
    async with database.transaction() as connection:
        for action, subject, actor, later in written:
            connection.audit(action, subject, noon + later, actor=actor)

    async def found(where: Filter) -> list[int]:
        async with database.connection() as connection:
            page = await trail.page(connection, where, None, 100)
        return sorted(written.index((act.action, act.subject, act.actor, act.time - noon)) for act in page)

    assert await found(Filter()) == [0, 1, 2, 3]
    assert await found(Filter(actor="user/2")) == [1, 2]
    assert await found(Filter(subject="product/1")) == [0, 2]
    assert await found(Filter(action="product.price_changed")) == [0, 1]
    assert await found(Filter(actor="user/2", subject="product/1", action="product.stock_changed")) == [2]
    assert await found(Filter(actor="user/3")) == []
    # Inclusive and exclusive, to the microsecond.
    assert await found(Filter(occurred_from=noon)) == [0, 1, 2, 3]
    assert await found(Filter(occurred_before=noon)) == []
    assert await found(Filter(occurred_from=noon + timedelta(microseconds=1))) == [1, 2, 3]
    assert await found(Filter(occurred_before=noon + timedelta(microseconds=1))) == [0]
    assert await found(Filter(actor="user/2", occurred_before=noon + timedelta(hours=1))) == [1]
    extremes = Filter(occurred_from=datetime(1, 1, 1, tzinfo=UTC), occurred_before=datetime(9999, 12, 31, tzinfo=UTC))
    assert await found(extremes) == [0, 1, 2, 3]


async def test_orders_and_payments_write_nothing_into_it(
    database: Database, replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one statement more than without a trail."""
    clock, (one, _) = replicas
    product, user = await new_product(database, stock=5), uuid7()

    async def refused(*_: object) -> None:
        raise AssertionError("an order is no act")

    monkeypatch.setattr(trail, "write", refused)
    order, _ = await one.create(request(user), [(product.id, 2)])
    await payments_of(database, one, clock, PaymentSandbox(database)).pay(request(user), order.id, "tok_approved", None)
    assert await kept(database) == []
