"""Paying an order: record the attempt, ask the provider, record the outcome.

The provider is called between two transactions. Until its outcome is recorded the attempt is `processing`, which
keeps the order from being cancelled, expired or paid a second time; whoever comes next, a retry with the same
idempotency key or the sweep, finds the outcome with the provider by the attempt's id.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from chassis.database import Connection, Database

from order_service.domain.errors import (
    NotFoundError,
    PaymentDeclinedError,
    PaymentInProgressError,
    PaymentProviderError,
    RequestInProgressError,
)
from order_service.domain.order import Order, OrderStatus, step
from order_service.gateways.payment import Outcome as Charge
from order_service.gateways.payment import PaymentGateway
from order_service.repository import idempotency, orders, payments
from order_service.repository.payments import Attempt
from order_service.repository.queries import PaymentStatus
from order_service.service.orders import Caches
from order_service.service.replay import Keyed, Outcome, ReplayCache, decode, encode

STUCK_BATCH = 20

_log = structlog.get_logger(__name__)


class PaymentUseCases:
    """Owns the transactions around payments.

    Args:
        database: the order database.
        caches: hot orders and products.
        replays: the fast path of idempotency.
        gateway: the payment provider.
        now: the clock, UTC.
        new_id: makes time-ordered ids.
        answer_time: how long the provider may take; an attempt is somebody's to wait for until then.
    """

    def __init__(
        self,
        *,
        database: Database,
        caches: Caches,
        replays: ReplayCache,
        gateway: PaymentGateway,
        now: Callable[[], datetime],
        new_id: Callable[[], UUID],
        answer_time: timedelta,
    ) -> None:
        self._database = database
        self._caches = caches
        self._replays = replays
        self._gateway = gateway
        self._now = now
        self._new_id = new_id
        self._answer_time = answer_time

    async def pay(
        self, request: Keyed, order_id: UUID, payment_token: str, expected_version: int | None
    ) -> tuple[Order, bool]:
        """Pay one's own order, once for each idempotency key.

        Returns:
            The order, and whether it is an earlier request's answer again.

        Raises:
            NotFoundError, StaleVersionError, IllegalTransitionError, PaymentInProgressError: nothing was charged.
            PaymentDeclinedError: the provider said no; the order stays unpaid.
            PaymentTimeoutError: the outcome is not known yet; a retry with the same key finds it.
            PaymentProviderError: nothing was charged; a retry with the same key tries again.
            IdempotencyKeyReusedError, RequestInProgressError: see repository.idempotency.
        """
        if (known := await self._replays.get(request)) is not None:
            return known.order_or_raise(), True
        now = self._now()
        async with self._database.transaction() as connection:
            stored = await idempotency.claim(connection, request.user_id, request.key, request.request_hash)
            if stored:
                return decode(stored).order_or_raise(), True
            if stored is None:
                await idempotency.record(connection, request.user_id, request.key, request.request_hash, b"", now)
            order = await orders.lock(connection, order_id)
            if order.user_id != request.user_id:
                raise NotFoundError
            attempt = await payments.processing(connection, order_id)
            if attempt is None:
                order.expect(expected_version)
                order.to(OrderStatus.PAID, now)
                attempt = Attempt(self._new_id(), order_id, request.user_id, request.key, payment_token)
                await payments.begin(connection, attempt, now)
            elif attempt.idempotency_key != request.key:
                raise PaymentInProgressError
            elif now < _begun(attempt.id) + self._answer_time:
                raise RequestInProgressError
        try:
            charge = await self._gateway.charge(attempt.id, order.total, payment_token)
        except PaymentProviderError:
            await self._fail(attempt)
            raise
        outcome = await self._settle(attempt, charge)
        if outcome is None:
            # The sweep or another retry was faster; the next use of the key answers what it recorded.
            raise RequestInProgressError
        await self._replays.put(request, outcome)
        if outcome.order is None:
            raise PaymentDeclinedError
        return outcome.order, False

    async def settle_stuck(self, patience: timedelta) -> int:
        """Find the outcome of attempts that have been processing for longer than `patience`; how many there were."""
        async with self._database.connection() as connection:
            found = await payments.stuck(connection, self._now() - patience, STUCK_BATCH)
        for attempt in found:
            try:
                charge = await self._gateway.find(attempt.id)
            except PaymentProviderError as error:
                _log.warning("payment outcome unknown", payment_id=str(attempt.id), error=str(error))
                continue
            if charge is None:
                await self._fail(attempt)
            else:
                await self._settle(attempt, charge)
        return len(found)

    async def _settle(self, attempt: Attempt, charge: Charge) -> Outcome | None:
        """Record the outcome; None when somebody else already has recorded one."""
        now = self._now()
        async with self._database.transaction() as connection:
            order = await orders.lock(connection, attempt.order_id)
            approved = charge is Charge.APPROVED
            status = PaymentStatus.APPROVED if approved else PaymentStatus.DECLINED
            if not await payments.finish(connection, attempt.id, status, now):
                return None
            if approved:
                order = await self._mark_paid(connection, order, now)
            outcome = Outcome(order if approved else None)
            await idempotency.finish(connection, attempt.user_id, attempt.idempotency_key, encode(outcome))
        return outcome

    async def _mark_paid(self, connection: Connection, order: Order, now: datetime) -> Order:
        paid, transition = step(order, OrderStatus.PAID, actor_id=order.user_id, reason="paid", now=now)
        await orders.update(connection, paid, transition)
        await self._caches.orders.raise_floor({str(order.id): paid.version})
        return paid

    async def _fail(self, attempt: Attempt) -> None:
        async with self._database.transaction() as connection:
            await orders.lock(connection, attempt.order_id)
            await payments.finish(connection, attempt.id, PaymentStatus.FAILED, self._now())


def _begun(attempt_id: UUID) -> datetime:
    """When an attempt began: its id is a UUIDv7, whose first 48 bits are Unix milliseconds."""
    return datetime.fromtimestamp((attempt_id.int >> 80) / 1000, tz=UTC)
