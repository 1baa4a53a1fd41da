"""What the Order service's statements read and write on the real PostgreSQL, and what its role may not."""

from __future__ import annotations

import hashlib
import uuid
from datetime import timedelta

import pytest
from chassis.database import Database
from chassis.ids import uuid7
from order.domain.money import Money
from order.domain.product import Product
from order.gateways.payment_sandbox import PaymentSandbox
from order.repository import orders, payments, products
from order.repository.orders import OrderFilter
from order.repository.queries import PaymentStatus
from order.service.catalog import CatalogUseCases
from order.service.orders import OrderUseCases
from order.service.replay import IdempotentRequest
from order_use_cases import Clock, new_product, payments_of, refunds_of


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
        "UPDATE refunds SET payment_id = NULL", "UPDATE refunds SET restock = true", "UPDATE refunds SET reason = ''",
    ):  # fmt: skip
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.connection() as connection:
                await connection.execute(statement)
    refunding = refunds_of(database, one, clock, PaymentSandbox(database))
    await refunding.refund(IdempotentRequest(uuid7(), "key-refund", b"r" * 32), order.id, "no", None, None)
    for statement in ("UPDATE payments SET status = 'failed'", "UPDATE refunds SET status = 'pending'"):
        with pytest.raises(asyncpg.RestrictViolationError):
            async with database.connection() as connection:
                await connection.execute(statement)


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


async def test_the_database_keeps_a_second_approved_payment_of_an_order_out(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    import asyncpg

    clock, (one, _) = replicas
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    for _ in range(2):
        async with database.transaction() as connection:
            attempt = payments.Attempt(uuid7(), order.id, user, "key-payment", "tok_approved", clock.now)
            await payments.begin(connection, attempt)
        if not await _approved(database, order.id):
            async with database.transaction() as connection:
                assert await payments.finish(connection, attempt.id, PaymentStatus.APPROVED, clock.now) is None
    with pytest.raises(asyncpg.UniqueViolationError):
        async with database.transaction() as connection:
            await payments.finish(connection, attempt.id, PaymentStatus.APPROVED, clock.now)


async def _approved(database: Database, order_id: uuid.UUID) -> uuid.UUID | None:
    async with database.connection() as connection:
        return await payments.approved_id(connection, order_id)
