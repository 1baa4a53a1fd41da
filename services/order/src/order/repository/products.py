"""Products and their stock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from chassis.text import search_key

from order.domain.errors import NotFoundError, SkuTakenError
from order.domain.product import Product
from order.domain.unpaid import Unpaid
from order.repository import queries, rows
from order.repository.queries import Connection


async def insert(connection: Connection, product: Product) -> Product:
    """A new product.

    Raises:
        SkuTakenError: another product has the SKU.
    """
    row = await queries.insert_product(
        connection,
        id=product.id,
        sku=product.sku,
        name=product.name,
        price_minor=product.price.amount_minor,
        currency=product.price.currency,
        available=product.available,
        search_key=search_key(product.name),
        now=product.created_at,
    )
    if row is None:
        raise SkuTakenError
    return rows.product(row)


async def get(connection: Connection, product_id: UUID) -> Product:
    """One product.

    Raises:
        NotFoundError: there is none.
    """
    row = await queries.get_product(connection, id=product_id)
    if row is None:
        raise NotFoundError
    return rows.product(row)


async def lock(connection: Connection, product_id: UUID) -> Product:
    """One product, its row locked until the transaction ends.

    Raises:
        NotFoundError: there is none.
    """
    row = await queries.lock_product(connection, id=product_id)
    if row is None:
        raise NotFoundError
    return rows.product(row)


async def lock_all(connection: Connection, product_ids: Iterable[UUID]) -> list[Product]:
    """The products that exist among these, locked in the order of their ids (so that no two callers deadlock)."""
    return [rows.product(row) for row in await queries.lock_products(connection, ids=sorted(product_ids))]


async def lock_to_order(
    connection: Connection, product_ids: Iterable[UUID], user_id: UUID, placed_since: datetime, most_orders: int
) -> tuple[list[Product], Unpaid]:
    """`lock_all`, and what the user has reserved since `placed_since` and not paid: of `most_orders` at most."""
    found = await queries.lock_products_to_order(
        connection, user_id=user_id, placed_since=placed_since, most_orders=most_orders, ids=sorted(product_ids)
    )
    unpaid = Unpaid(found[0].unpaid_orders if found else 0, {row.product.id: row.unpaid_pieces for row in found})
    return [rows.product(row.product) for row in found], unpaid


async def update(connection: Connection, product: Product, now: datetime) -> Product:
    """Store name and price; raises the version."""
    row = await queries.update_product(
        connection,
        id=product.id,
        name=product.name,
        price_minor=product.price.amount_minor,
        currency=product.price.currency,
        search_key=search_key(product.name),
        updated_at=now,
    )
    if row is None:
        raise NotFoundError
    return rows.product(row)


async def change_stock(connection: Connection, deltas: Mapping[UUID, int], now: datetime) -> list[Product]:
    """Add the deltas to the stock of products that the caller has locked; raises their stock's versions."""
    found = await queries.change_stock(connection, now=now, ids=list(deltas), deltas=list(deltas.values()))
    return [rows.product(row) for row in found]


async def record_stock_change(
    connection: Connection, change_id: UUID, product_id: UUID, delta: int, reason: str, actor_id: UUID, now: datetime
) -> None:
    """Who changed the stock by hand, by how much and why."""
    await queries.insert_stock_change(
        connection, id=change_id, product_id=product_id, delta=delta, reason=reason, actor_id=actor_id, created_at=now
    )


async def page(connection: Connection, search: str, after: tuple[str, UUID] | None, limit: int) -> list[Product]:
    """Up to `limit` products by name, after the keyset (name, id)."""
    found = await queries.list_products(
        connection,
        after_name=after[0] if after else None,
        after_id=after[1] if after else None,
        pattern=contains(search) if search else None,
        row_limit=limit,
    )
    return [rows.product(row) for row in found]


def contains(search: str) -> str:
    """A LIKE pattern for "contains `search`", its wildcards taken literally."""
    escaped = search_key(search).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


async def fill_search_keys(connection: Connection, limit: int) -> int:
    """Make up to `limit` products that have no search key findable; how many there were."""
    found = await queries.list_products_without_search_key(connection, row_limit=limit)
    if found:
        await queries.set_search_keys(
            connection, ids=[row.id for row in found], search_keys=[search_key(row.name) for row in found]
        )
    return len(found)
