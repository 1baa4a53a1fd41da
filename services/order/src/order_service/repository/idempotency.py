"""Idempotency keys: the durable truth, written in the transaction of what it guards."""

from __future__ import annotations

import hashlib
from datetime import datetime
from uuid import UUID

from order_service.domain.errors import IdempotencyKeyReusedError, RequestInProgressError
from order_service.repository import queries
from order_service.repository.queries import Connection


async def claim(connection: Connection, user_id: UUID, key: str, request_hash: bytes, now: datetime) -> bytes | None:
    """Claim the key for this request inside the current transaction.

    Returns:
        None when the request is the first and must run; the stored response when it ran before; empty bytes when
        an earlier try has begun it and not recorded an outcome.

    Raises:
        RequestInProgressError: another transaction holds the key right now.
        IdempotencyKeyReusedError: the key belongs to a different request.
    """
    digest = hashlib.blake2b(user_id.bytes + key.encode(), digest_size=8).digest()
    if not await queries.try_lock_key(connection, lock_id=int.from_bytes(digest, "big", signed=True)):
        raise RequestInProgressError
    inserted = await queries.insert_idempotency_key(
        connection, user_id=user_id, key=key, request_hash=request_hash, response=b"", created_at=now
    )
    if inserted:
        return None
    known = await queries.get_idempotency_key(connection, user_id=user_id, key=key)
    if known is None:
        raise RequestInProgressError
    if known.request_hash != request_hash:
        raise IdempotencyKeyReusedError
    return known.response


async def finish(connection: Connection, user_id: UUID, key: str, response: bytes) -> None:
    """Record the response that every later use of the key answers."""
    await queries.set_idempotent_response(connection, user_id=user_id, key=key, response=response)


async def forget(connection: Connection, created_before: datetime) -> int:
    """Drop keys older than the retention; how many there were."""
    return await queries.delete_old_idempotency_keys(connection, created_before=created_before)
