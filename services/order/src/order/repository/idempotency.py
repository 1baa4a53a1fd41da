"""Idempotency keys: the durable truth, written in the transaction of what it guards."""

from __future__ import annotations

import hashlib
from datetime import datetime
from uuid import UUID

from order.domain.errors import IdempotencyKeyReusedError, RequestInProgressError
from order.repository import queries
from order.repository.queries import Connection


async def claim(connection: Connection, user_id: UUID, key: str, request_hash: bytes) -> bytes | None:
    """Take the key for this request until the current transaction ends.

    Returns:
        None when the request is the first: it must `record` the key before it commits. The stored response when it
        ran before; empty bytes when an earlier try has begun it and not recorded an outcome.

    Raises:
        RequestInProgressError: another transaction holds the key right now.
        IdempotencyKeyReusedError: the key belongs to a different request.
    """
    lock_id = _lock_id(user_id.bytes + key.encode())
    return _claimed(await queries.claim_key(connection, lock_id=lock_id, user_id=user_id, key=key), request_hash)


async def claim_in_turn(connection: Connection, user_id: UUID, key: str, request_hash: bytes) -> bytes | None:
    """`claim`, for what one user does one after the other: the next one waits until this transaction ends."""
    found = await queries.claim_key_in_turn(
        connection,
        lock_id=_lock_id(user_id.bytes + key.encode()),
        user_lock_id=_lock_id(user_id.bytes),
        user_id=user_id,
        key=key,
    )
    return _claimed(found, request_hash)


def _lock_id(of: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(of, digest_size=8).digest(), "big", signed=True)


def _claimed(claimed: queries.ClaimKeyRow | None, request_hash: bytes) -> bytes | None:
    if claimed is None or not claimed.locked:
        raise RequestInProgressError
    if claimed.request_hash is None:
        return None
    if claimed.request_hash != request_hash:
        raise IdempotencyKeyReusedError
    return claimed.response


async def record(
    connection: Connection, user_id: UUID, key: str, request_hash: bytes, response: bytes, now: datetime
) -> None:
    """Write the claimed key with its response, or with empty bytes when the outcome is still to come.

    Raises:
        RequestInProgressError: the same key was committed in the instant before it was claimed.
    """
    inserted = await queries.insert_idempotency_key(
        connection, user_id=user_id, key=key, request_hash=request_hash, response=response, created_at=now
    )
    if not inserted:
        raise RequestInProgressError


async def response(connection: Connection, user_id: UUID, key: str) -> bytes:
    """The stored response of a key as of now; empty while there is none."""
    return await queries.get_idempotent_response(connection, user_id=user_id, key=key) or b""


async def finish(connection: Connection, user_id: UUID, key: str, response: bytes) -> None:
    """Give a key that was recorded without an outcome the response that every later use of it answers."""
    await queries.set_idempotent_response(connection, user_id=user_id, key=key, response=response)


async def forget(connection: Connection, created_before: datetime, limit: int) -> int:
    """Drop up to `limit` keys older than the retention, none of what is still under way; how many there were."""
    return await queries.delete_old_idempotency_keys(connection, created_before=created_before, row_limit=limit)
