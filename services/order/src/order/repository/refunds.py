"""Refunds: what is to be given back, and how far that is."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from order.domain.errors import NotFoundError
from order.domain.refund import Refund, RefundStatus
from order.repository import queries, rows
from order.repository.queries import Connection


async def begin(connection: Connection, refund: Refund) -> None:
    """Record the intent, before the provider is asked for the first time."""
    await queries.insert_refund(
        connection,
        order_id=refund.order_id,
        payment_id=refund.payment_id,
        restock=refund.restock,
        reason=refund.reason,
        actor_id=refund.actor_id,
        idempotency_key=refund.idempotency_key,
        next_attempt_at=refund.next_attempt_at,
        now=refund.requested_at,
    )


async def get(connection: Connection, order_id: UUID) -> Refund:
    """The refund of an order.

    Raises:
        NotFoundError: nobody has asked for one.
    """
    row = await queries.get_refund(connection, order_id=order_id)
    if row is None:
        raise NotFoundError
    return rows.refund(row)


async def again(connection: Connection, order_id: UUID, now: datetime, not_before: datetime) -> Refund:
    """The refund of an order, of which somebody is about to ask the provider once more; nobody else does before.

    Raises:
        NotFoundError: nobody has asked for one.
    """
    row = await queries.try_refund_again(connection, order_id=order_id, now=now, not_before=not_before)
    if row is None:
        raise NotFoundError
    return rows.refund(row)


async def claim_due(connection: Connection, now: datetime, limit: int) -> list[Refund]:
    """Refunds to try again now; each is due again later, at growing intervals."""
    return [rows.refund(row) for row in await queries.claim_due_refunds(connection, now=now, row_limit=limit)]


async def put(connection: Connection, order_id: UUID, status: RefundStatus, error: str, now: datetime) -> None:
    """Record how an attempt ended; one that has succeeded stays so."""
    await queries.set_refund_status(
        connection, order_id=order_id, status=queries.RefundStatus(status), last_error=error, updated_at=now
    )
