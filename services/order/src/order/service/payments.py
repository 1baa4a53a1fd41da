"""Paying an order: record the attempt, ask the provider, record the outcome.

The provider is called between two transactions. Until its outcome is recorded the attempt is `processing`, which
keeps the order from being cancelled, expired or paid a second time; whoever comes next, a retry with the same
idempotency key or the sweep, finds the outcome with the provider by the attempt's id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from chassis.database import Database

from order.domain.errors import (
    IllegalTransitionError,
    NotFoundError,
    PaymentDeclinedError,
    PaymentInProgressError,
    PaymentProviderError,
    PaymentTimeoutError,
    RequestInProgressError,
    TooManyDeclinedPaymentsError,
)
from order.domain.order import Order, OrderStatus
from order.gateways.payment import ChargeOutcome, PaymentGateway
from order.metrics import PAYMENTS
from order.repository import idempotency, orders, payments
from order.repository.payments import Attempt
from order.repository.queries import PaymentStatus
from order.service import events
from order.service.replay import IdempotentRequest, ReplayCache, ended_with, first_answer
from order.service.stored import Outcome, decode, encode
from order.service.transitions import Transitions

STUCK_BATCH = 20
_RECORDED_AS = {
    ChargeOutcome.APPROVED: PaymentStatus.APPROVED,
    ChargeOutcome.DECLINED: PaymentStatus.DECLINED,
    ChargeOutcome.CLOSED: PaymentStatus.FAILED,
}

_log = structlog.get_logger(__name__)


class PaymentUseCases:
    """Owns the transactions around payments.

    Args:
        database: the order database.
        transitions: makes the steps.
        replays: the fast path of idempotency.
        gateway: the payment provider.
        now: the clock, UTC.
        answer_time: how long the provider may take. Until then an attempt is left to the request that began it.
        most_declined: declined payments of one order after which it cannot be paid any more; 0: any number. Who has
            stolen cards tries out with a shop which of them are good.
    """

    def __init__(
        self,
        *,
        database: Database,
        transitions: Transitions,
        replays: ReplayCache,
        gateway: PaymentGateway,
        now: Callable[[], datetime],
        answer_time: timedelta,
        most_declined: int,
    ) -> None:
        self._database = database
        self._transitions = transitions
        self._replays = replays
        self._gateway = gateway
        self._now = now
        self._answer_time = answer_time
        self._most_declined = most_declined

    async def pay(
        self, request: IdempotentRequest, order_id: UUID, payment_token: str, expected_version: int | None
    ) -> tuple[Order, bool]:
        """Pay one's own order, once for each idempotency key.

        Returns:
            The order, and whether it is an earlier request's answer again.

        Raises:
            NotFoundError, StaleVersionError, IllegalTransitionError, PaymentInProgressError,
            TooManyDeclinedPaymentsError: nothing was charged.
            PaymentDeclinedError: the provider said no; the order stays unpaid.
            PaymentTimeoutError: the outcome is not known yet; a retry with the same key finds it.
            PaymentProviderError: nothing was charged; a retry with the same key tries again.
            IdempotencyKeyReusedError, RequestInProgressError: see repository.idempotency.
        """
        if (known := await self._replays.get(request)) is not None:
            async with self._database.connection() as connection:
                return await first_answer(connection, known), True
        now = self._now()
        async with self._database.transaction() as connection:
            stored = await idempotency.claim(connection, request.user_id, request.key, request.request_hash, now)
            if stored:
                return await first_answer(connection, decode(stored)), True
            order = await orders.lock(connection, order_id)
            if order.user_id != request.user_id:
                raise NotFoundError
            # An earlier use of the key may have been answered while this one waited for the order.
            if stored is not None and (stored := await idempotency.response(connection, request.user_id, request.key)):
                return await first_answer(connection, decode(stored)), True
            attempt = await payments.processing(connection, order_id)
            if attempt is None:
                order.require_version(expected_version)
                order.transition_to(OrderStatus.PAID, now)
                if order.expires_at <= now:
                    raise IllegalTransitionError("the time in which the order could be paid is over")
                begun, declined = await payments.count(connection, order_id)
                if self._most_declined and declined >= self._most_declined:
                    raise TooManyDeclinedPaymentsError(
                        f"{self._most_declined} payments of this order were declined; order again",
                        maximum=str(self._most_declined),
                    )
                reference = reference_of(order_id, begun)
                attempt = Attempt(reference, order_id, request.user_id, request.key, payment_token, now)
                await payments.begin(connection, attempt)
            elif attempt.idempotency_key != request.key:
                raise PaymentInProgressError
            elif abs(now - attempt.begun) < self._answer_time:
                # Neither long ago nor, by a clock that was ahead, yet to come.
                raise RequestInProgressError
        failure: PaymentProviderError | None = None
        try:
            charge = await self._gateway.charge(attempt.id, order.total, payment_token)
        except PaymentProviderError as error:
            failure, charge = error, await self._charged_or_closed(attempt)
        settled = await self._settle(attempt, charge)
        if settled is None:
            # Nobody was charged: the attempt was closed, just now because the provider failed, or earlier by the sweep or by a
            # process that died before it recorded that.
            raise failure or RequestInProgressError
        order_paid, outcome = settled
        await self._replays.put(request, outcome)
        if order_paid is None:
            raise PaymentDeclinedError
        return order_paid, False

    async def settle_stuck(self, patience: timedelta) -> int:
        """Find the outcome of attempts that have been processing for longer than `patience`; how many were settled."""
        count = 0
        while True:
            now = self._now()
            async with self._database.transaction() as connection:
                found = await payments.claim_stuck(connection, now, patience, STUCK_BATCH)
            for attempt in found:
                try:
                    await self._settle(attempt, await self._gateway.resolve(attempt.id))
                    count += 1
                except (PaymentProviderError, PaymentTimeoutError) as error:
                    _log.warning("payment outcome unknown", payment_id=str(attempt.id), error=repr(error))
                except Exception:
                    _log.exception("payment not settled", payment_id=str(attempt.id))
            if len(found) < STUCK_BATCH:
                return count

    async def _charged_or_closed(self, attempt: Attempt) -> ChargeOutcome:
        """How an attempt ended whose call failed: an earlier call may have charged, or may still be on its way to the provider.

        Raises:
            PaymentTimeoutError: the provider does not say.
        """
        try:
            return await self._gateway.resolve(attempt.id)
        except PaymentProviderError as error:
            # This error would tell the caller that nothing was charged, which is not known.
            raise PaymentTimeoutError from error

    async def _settle(self, attempt: Attempt, charge: ChargeOutcome) -> tuple[Order | None, Outcome] | None:
        """Record the outcome, or find the one that somebody else recorded; None when the attempt was closed without a charge.

        Returns:
            The paid order (None: declined), and what later uses of the key find.
        """
        now, status = self._now(), _RECORDED_AS[charge]
        async with self._database.transaction() as connection:
            order = await orders.lock(connection, attempt.order_id)
            earlier = await payments.finish(connection, attempt.id, status, now)
            if earlier is not None:
                if earlier is not status and PaymentStatus.APPROVED in (earlier, status):
                    # The provider contradicts its earlier answer (see `PaymentGateway`). Only people can find out what it charged.
                    _log.error(
                        "payment provider contradicts itself",
                        payment_id=str(attempt.id),
                        order_id=str(order.id),
                        recorded=earlier,
                        answered=status,
                    )
                stored = await idempotency.response(connection, attempt.user_id, attempt.idempotency_key)
                if not stored:
                    return None
                outcome = decode(stored)
                return None if outcome.order is None else await first_answer(connection, outcome), outcome
            PAYMENTS.add(status)
            if charge is not ChargeOutcome.APPROVED:
                connection.record(order.id, events.payment_failed(attempt, order.total, status), now)
            if charge is ChargeOutcome.CLOSED:
                return None
            paid, outcome = None, Outcome(None)
            if charge is ChargeOutcome.APPROVED:
                paid = await self._transitions.apply(
                    connection, order, OrderStatus.PAID, actor_id=order.user_id, reason="paid"
                )
                outcome = ended_with(paid)
            await idempotency.finish(connection, attempt.user_id, attempt.idempotency_key, encode(outcome))
        return paid, outcome


def reference_of(order_id: UUID, earlier: int) -> UUID:
    """By what the provider knows an attempt on an order, `earlier` ones having gone before it.

    Nothing of it is ours alone to remember: where a backup has taken our memory of a charge, the next attempt asks the provider
    for that very charge, and is told how it ended. A UUIDv8 (RFC 9562, 5.8): the order's time, then a hash.
    """
    hashed = int.from_bytes(hashlib.sha256(order_id.bytes + earlier.to_bytes(8, "big")).digest()[:10], "big")
    version, variant = 8 << 76, 2 << 62
    return UUID(int=order_id.int >> 80 << 80 | version | (hashed >> 68) << 64 | variant | hashed & (1 << 62) - 1)
