"""Idempotency keys: the durable truth, written in the transaction of what it guards."""

from __future__ import annotations

import hashlib
from datetime import datetime
from uuid import UUID

from order.domain.errors import IdempotencyKeyReusedError, RequestInProgressError
from order.metrics import IDEMPOTENT_REQUESTS
from order.repository import queries
from order.repository.queries import Connection


async def claim(
    connection: Connection, user_id: UUID, key: str, request_hash: bytes, now: datetime, response: bytes = b""
) -> bytes | None:
    """Take the key for this request until the current transaction ends.

    Call it before reading anything that the first request changes. Otherwise a repetition that arrives at the moment in which
    the first request commits could be answered by what that request left, instead of by its answer.

    Args:
        connection: of the transaction of what the key guards.
        user_id: whose key it is; equal keys of different users are different keys.
        key: as the client made it.
        request_hash: of everything in the request that decides what it does.
        now: when it is used.
        response: what later uses of the key are answered; empty while that is not known yet (see `finish`).

    Returns:
        None when the request is the first; the key is recorded. The stored response when it ran before; empty bytes
        when an earlier try has begun it and not recorded an outcome.

    Raises:
        RequestInProgressError: another transaction holds the key right now, or did a moment ago.
        IdempotencyKeyReusedError: the key belongs to a different request.
    """
    found = await queries.claim_key(
        connection, lock_id=_lock_id(user_id.bytes + key.encode()), user_id=user_id, key=key
    )
    return await _claimed(connection, found, user_id, key, request_hash, now, response)


async def claim_in_turn(
    connection: Connection, user_id: UUID, key: str, request_hash: bytes, now: datetime, response: bytes = b""
) -> bytes | None:
    """`claim`, for what one user does one after the other: the next one waits until this transaction ends."""
    found = await queries.claim_key_in_turn(
        connection,
        lock_id=_lock_id(user_id.bytes + key.encode()),
        user_lock_id=_lock_id(user_id.bytes),
        user_id=user_id,
        key=key,
    )
    return await _claimed(connection, found, user_id, key, request_hash, now, response)


def _lock_id(of: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(of, digest_size=8).digest(), "big", signed=True)


async def _claimed(
    connection: Connection,
    found: queries.ClaimKeyRow | None,
    user_id: UUID,
    key: str,
    request_hash: bytes,
    now: datetime,
    response: bytes,
) -> bytes | None:
    if found is None or not found.locked:
        IDEMPOTENT_REQUESTS.add("in_progress")
        raise RequestInProgressError
    if found.request_hash is None:
        inserted = await queries.insert_idempotency_key(
            connection, user_id=user_id, key=key, request_hash=request_hash, response=response, created_at=now
        )
        if not inserted:
            # It was committed after the statement had looked and before it got the lock.
            IDEMPOTENT_REQUESTS.add("in_progress")
            raise RequestInProgressError
        IDEMPOTENT_REQUESTS.add("first")
        return None
    if found.request_hash != request_hash:
        IDEMPOTENT_REQUESTS.add("conflict")
        raise IdempotencyKeyReusedError
    IDEMPOTENT_REQUESTS.add("replay" if found.response else "resumed")
    return found.response


async def response(connection: Connection, user_id: UUID, key: str) -> bytes:
    """The stored response of a key as of now; empty while there is none."""
    return await queries.get_idempotent_response(connection, user_id=user_id, key=key) or b""


async def finish(connection: Connection, user_id: UUID, key: str, response: bytes) -> None:
    """Give a key that was recorded without an outcome the response that every later use of it answers."""
    await queries.set_idempotent_response(connection, user_id=user_id, key=key, response=response)


async def forget(connection: Connection, created_before: datetime, limit: int) -> int:
    """Drop up to `limit` keys older than the retention, none of what is still under way; how many there were."""
    return await queries.delete_old_idempotency_keys(connection, created_before=created_before, row_limit=limit)
