"""Attempts to pay an order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from order.domain.errors import NotFoundError
from order.repository import queries
from order.repository.queries import Connection, PaymentStatus


@dataclass(frozen=True, slots=True)
class Attempt:
    """A payment under way; the provider knows it by its id. `begun` by the clock of whoever did, UTC."""

    id: UUID
    order_id: UUID
    user_id: UUID
    idempotency_key: str
    payment_token: str
    begun: datetime


async def begin(connection: Connection, attempt: Attempt) -> None:
    """Record an attempt before the provider is called."""
    await queries.insert_payment(
        connection,
        id=attempt.id,
        order_id=attempt.order_id,
        user_id=attempt.user_id,
        idempotency_key=attempt.idempotency_key,
        payment_token=attempt.payment_token,
        now=attempt.begun,
    )


async def processing(connection: Connection, order_id: UUID) -> Attempt | None:
    """The attempt on this order that has no outcome yet."""
    row = await queries.get_processing_payment(connection, order_id=order_id)
    return None if row is None else _attempt(row)


async def count(connection: Connection, order_id: UUID) -> tuple[int, int]:
    """How many attempts on this order have begun, and how many of them the provider has declined."""
    row = await queries.count_payments(connection, order_id=order_id)
    return (0, 0) if row is None else (row.begun, row.declined)


async def approved_id(connection: Connection, order_id: UUID) -> UUID | None:
    """The attempt that paid the order."""
    row = await queries.get_approved_payment(connection, order_id=order_id)
    return None if row is None else row.id


async def finish(
    connection: Connection, payment_id: UUID, status: PaymentStatus, now: datetime
) -> PaymentStatus | None:
    """Record the outcome. None, or the outcome that somebody else has recorded before, which stays.

    Raises:
        NotFoundError: there is no such attempt.
    """
    row = await queries.lock_payment(connection, id=payment_id)
    if row is None:
        raise NotFoundError
    if row.status is not PaymentStatus.PROCESSING:
        return row.status
    await queries.finish_payment(connection, id=payment_id, status=status, updated_at=now)
    return None


async def claim_stuck(connection: Connection, now: datetime, patience: timedelta, limit: int) -> list[Attempt]:
    """Attempts without an outcome that began `patience` ago or longer; each is due again later, at growing intervals."""
    found = await queries.claim_stuck_payments(
        connection, now=now, created_before=now - patience, created_after=now + patience, row_limit=limit
    )
    return [_attempt(row) for row in found]


def _attempt(row: queries.Payment) -> Attempt:
    return Attempt(row.id, row.order_id, row.user_id, row.idempotency_key, row.payment_token, row.created_at)
