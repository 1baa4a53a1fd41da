"""The answer to an idempotency key's first request, found again for every later use of it.

The truth is the row written in the operation's own transaction; Valkey only saves the way to it, is written after
the commit, and may lose everything at any time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

import structlog
from chassis.database import Connection
from chassis.valkey import PipelinedClient, ValkeyError

from order.domain.errors import IdempotencyKeyReusedError, PaymentDeclinedError
from order.domain.order import Order
from order.metrics import IDEMPOTENT_REQUESTS
from order.repository import orders
from order.service.stored import Outcome, decode, encode

_log = structlog.get_logger(__name__)


# A declined payment is answered by an error. Its facts say that the answer is a replay.
REPLAYED = {"idempotency_replayed": "true"}


def ended_with(order: Order) -> Outcome:
    """The outcome that names this version of an order."""
    return Outcome(order.id, order.version)


async def first_answer(connection: Connection, outcome: Outcome) -> Order:
    """The order as the first answer showed it, whatever has happened to it since.

    draft-ietf-httpapi-idempotency-key-header, section 2.6: a retry gets the result of the completed request.

    Raises:
        PaymentDeclinedError: that was the first answer.
    """
    if outcome.order is None:
        raise PaymentDeclinedError(**REPLAYED)
    if isinstance(outcome.order, Order):
        return outcome.order
    return await orders.get_version(connection, outcome.order, outcome.version)


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request under an idempotency key."""

    user_id: UUID
    key: str
    # A hash of everything in the request that decides what it does.
    request_hash: bytes

    @property
    def cache_key(self) -> str:
        """Where Valkey keeps the answer."""
        return f"order:idempotency:{self.user_id}:{hashlib.sha256(self.key.encode()).hexdigest()}"


class ReplayCache:
    """The fast path.

    Args:
        client: of the Valkey server that all replicas share.
        ttl: seconds an answer is kept.
    """

    def __init__(self, client: PipelinedClient, ttl: float) -> None:
        self._client = client
        self._ttl = int(ttl)

    async def get(self, request: IdempotentRequest) -> Outcome | None:
        """The first answer, when Valkey still knows it.

        Raises:
            IdempotencyKeyReusedError: the key belongs to a different request.
        """
        try:
            stored = await self._client.get(request.cache_key)
        except ValkeyError as error:
            _log.warning("idempotency fast path failed", error=str(error))
            return None
        if stored is None:
            return None
        size = len(request.request_hash)
        if stored[:size] != request.request_hash:
            IDEMPOTENT_REQUESTS.add("conflict")
            raise IdempotencyKeyReusedError
        IDEMPOTENT_REQUESTS.add("replay")
        return decode(stored[size:])

    async def put(self, request: IdempotentRequest, outcome: Outcome) -> None:
        """Remember a committed answer."""
        try:
            await self._client.set(request.cache_key, request.request_hash + encode(outcome), self._ttl)
        except ValkeyError as error:
            _log.warning("idempotency fast path failed", error=str(error))
