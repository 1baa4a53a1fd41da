"""Orders, their lines and their history."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from order.domain.errors import NotFoundError
from order.domain.money import Money
from order.domain.order import Order, OrderStatus, Transition
from order.repository import queries, rows
from order.repository.queries import Connection

# How many lines the orders on one page of a list may have together: as many as five of the largest orders have. While a page is
# made, all other requests of the process wait, and a longer one would not fit into the window of a stream (ADR 0028).
PAGE_LINES = 250


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """Which orders a list shows; None does not filter."""

    user_id: UUID | None = None
    status: OrderStatus | None = None
    # The first is inclusive, the second exclusive.
    created_from: datetime | None = None
    created_before: datetime | None = None


async def insert(connection: Connection, order: Order) -> None:
    """A new order with its lines and, in its history, its placing by its own user."""
    await queries.insert_order(
        connection,
        id=order.id,
        user_id=order.user_id,
        currency=order.total.currency,
        total_minor=order.total.amount_minor,
        expires_at=order.expires_at,
        now=order.created_at,
        product_ids=[line.product_id for line in order.lines],
        names=[line.name for line in order.lines],
        unit_prices_minor=[line.unit_price.amount_minor for line in order.lines],
        quantities=[line.quantity for line in order.lines],
    )


async def get(connection: Connection, order_id: UUID) -> Order:
    """One order.

    Raises:
        NotFoundError: there is none.
    """
    found = await queries.get_order(connection, id=order_id)
    if not found:
        raise NotFoundError
    return rows.order(found[0].order, [row.order_item for row in found])


async def get_version(connection: Connection, order_id: UUID, version: int) -> Order:
    """One order as its `version` left it.

    Raises:
        NotFoundError: there is none.
    """
    found = await queries.get_order_version(connection, id=order_id, version=version)
    if not found:
        raise NotFoundError
    then = replace(found[0].order, status=found[0].to_status, version=version, updated_at=found[0].occurred_at)
    return rows.order(then, [row.order_item for row in found])


async def lock(connection: Connection, order_id: UUID) -> Order:
    """One order, its row locked until the transaction ends.

    Raises:
        NotFoundError: there is none.
    """
    row = await queries.lock_order(connection, id=order_id)
    if row is None:
        raise NotFoundError
    return rows.order(row, await queries.list_items_of_orders(connection, order_ids=[order_id]))


async def lock_if_free(connection: Connection, order_id: UUID) -> Order | None:
    """One order, locked; None when somebody else holds it or there is none."""
    row = await queries.lock_order_if_free(connection, id=order_id)
    if row is None:
        return None
    return rows.order(row, await queries.list_items_of_orders(connection, order_ids=[order_id]))


async def update(connection: Connection, order: Order, transition: Transition) -> None:
    """Store a transition: the order's new status and version, and the step in its history."""
    await queries.update_order_status(
        connection,
        id=order.id,
        status=queries.OrderStatus(order.status),
        version=order.version,
        updated_at=order.updated_at,
    )
    await _record(connection, transition)


async def page(
    connection: Connection, where: OrderFilter, before: tuple[datetime, UUID] | None, limit: int
) -> tuple[list[Order], bool]:
    """Up to `limit` orders, newest first, below the keyset (created_at, id), and whether there are more below them.

    A page of large orders has fewer: they have at most `PAGE_LINES` lines together.
    """
    found = await queries.list_orders(
        connection,
        user_id=where.user_id,
        before_created_at=before[0] if before else None,
        before_id=before[1] if before else None,
        status=None if where.status is None else queries.OrderStatus(where.status),
        created_from=where.created_from,
        created_before=where.created_before,
        row_limit=limit + 1,
    )
    asked = found[:limit]
    items = await queries.list_items_of_page(connection, order_ids=[row.id for row in asked], row_limit=PAGE_LINES + 1)
    lines: dict[UUID, list[queries.OrderItem]] = {}
    for item in items:
        lines.setdefault(item.order_id, []).append(item)
    if len(items) > PAGE_LINES:
        # The last one's order may have more.
        del lines[items[-1].order_id]
    shown = [rows.order(row, lines[row.id]) for row in asked if row.id in lines]
    return shown, len(found) > len(shown)


async def expired(
    connection: Connection, now: datetime, after: tuple[datetime, UUID] | None, limit: int
) -> list[tuple[datetime, UUID]]:
    """Unpaid orders whose time is up and that nobody pays right now, after the keyset (time, id)."""
    found = await queries.list_expired_orders(
        connection,
        now=now,
        after_expires_at=after[0] if after else None,
        after_id=after[1] if after else None,
        row_limit=limit,
    )
    return [(row.expires_at, row.id) for row in found]


async def spending(connection: Connection, user_id: UUID) -> list[Money]:
    """What the user has paid and was not refunded, by currency."""
    found = await queries.sum_spending(connection, user_id=user_id)
    return [Money(int(row.total_minor), row.currency) for row in found]


async def history(connection: Connection, order_id: UUID) -> list[Transition]:
    """All transitions of an order, oldest first; none when the order does not exist."""
    return [rows.transition(row) for row in await queries.list_transitions(connection, order_id=order_id)]


async def _record(connection: Connection, transition: Transition) -> None:
    await queries.insert_transition(
        connection,
        order_id=transition.order_id,
        version=transition.version,
        from_status=None if transition.from_status is None else queries.OrderStatus(transition.from_status),
        to_status=queries.OrderStatus(transition.to_status),
        actor_id=transition.actor_id,
        reason=transition.reason,
        occurred_at=transition.occurred_at,
        carrier=transition.shipment.carrier if transition.shipment else None,
        tracking_number=transition.shipment.tracking_number if transition.shipment else None,
    )
