"""Refunding an order: record the intent, ask the provider, record that the money is back.

The provider is called between two transactions. From the first one on the order is `refunding`, which excludes every
other transition, so that nothing is shipped whose money is on its way back. The intent is never dropped: when the
provider fails, does not answer, or refuses, or when this process dies, the sweep asks again, at growing intervals, by
the payment's own reference, which makes it harmless to ask twice.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from chassis.database import Database

from order.domain.errors import PaymentProviderError, PaymentTimeoutError
from order.domain.order import Order, OrderStatus
from order.domain.refund import Refund, RefundStatus, readable, restocks_by_default
from order.gateways.payment import PaymentGateway, RefundOutcome
from order.repository import idempotency, orders, payments, refunds
from order.service import acts
from order.service.replay import IdempotentRequest, ended_with, first_answer
from order.service.stored import decode, encode
from order.service.transitions import Transitions

DUE_BATCH = 20
# How long an attempt that a request makes itself is left alone by the sweep.
_PATIENCE = timedelta(seconds=30)

_log = structlog.get_logger(__name__)


class RefundUseCases:
    """Owns the transactions around refunds.

    Args:
        database: the order database.
        transitions: makes the steps.
        gateway: the payment provider.
        now: the clock, UTC.
    """

    def __init__(
        self, *, database: Database, transitions: Transitions, gateway: PaymentGateway, now: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._transitions = transitions
        self._gateway = gateway
        self._now = now

    async def refund(
        self,
        request: IdempotentRequest,
        order_id: UUID,
        reason: str,
        restock: bool | None,
        expected_version: int | None,
    ) -> tuple[Order, bool]:
        """Give the money of a paid, shipped or delivered order back, all of it, once.

        Args:
            request: who asks, under which key.
            order_id: of which order.
            reason: why, for its history.
            restock: whether its pieces go back into stock; None: only those that were never shipped.
            expected_version: see `Order.require_version`.

        Returns:
            The order, and whether it is an earlier request's answer again. It is `refunded`, or still `refunding`
            when the provider has not given the money back yet; then it is asked again until it has.

        Raises:
            NotFoundError, StaleVersionError, IllegalTransitionError: nothing was begun.
            IdempotencyKeyReusedError, RequestInProgressError: see repository.idempotency.
        """
        now = self._now()
        async with self._database.transaction() as connection:
            stored = await idempotency.claim(connection, request.user_id, request.key, request.request_hash, now)
            if stored:
                return await first_answer(connection, decode(stored)), True
            order = await orders.lock(connection, order_id)
            if stored is None:
                order.require_version(expected_version)
                refund = Refund(
                    order_id=order.id,
                    payment_id=await payments.approved_id(connection, order_id),
                    restock=restocks_by_default(order) if restock is None else restock,
                    reason=reason,
                    actor_id=request.user_id,
                    idempotency_key=request.key,
                    status=RefundStatus.PENDING,
                    attempts=1,
                    last_error="",
                    next_attempt_at=now + _PATIENCE,
                    requested_at=now,
                    updated_at=now,
                )
                acts.refund_requested(connection, order, refund, now)
                order = await self._transitions.apply(
                    connection, order, OrderStatus.REFUNDING, actor_id=request.user_id, reason=reason
                )
                await refunds.begin(connection, refund)
            else:
                # The sweep may have finished it while this one waited for the order.
                if stored := await idempotency.response(connection, request.user_id, request.key):
                    return await first_answer(connection, decode(stored)), True
                refund = await refunds.again(connection, order_id, now, now + _PATIENCE)
        return await self._attempt(refund) or order, False

    async def get(self, order_id: UUID) -> Refund:
        """How the refund of an order stands.

        Raises:
            NotFoundError: nobody has asked for one.
        """
        async with self._database.connection() as connection:
            return await refunds.get(connection, order_id)

    async def finish_due(self) -> int:
        """Try every refund again whose time has come; how many were finished."""
        count = 0
        while True:
            async with self._database.transaction() as connection:
                due = await refunds.claim_due(connection, self._now(), DUE_BATCH)
            for refund in due:
                try:
                    count += await self._attempt(refund) is not None
                except Exception:
                    _log.exception("refund not finished", order_id=str(refund.order_id))
            if len(due) < DUE_BATCH:
                return count

    async def _attempt(self, refund: Refund) -> Order | None:
        """Ask the provider once; the refunded order, or None when the money is not back yet."""
        if refund.payment_id is None:
            # The order is paid, but no payment of it is recorded, so nobody may say that the money has been given back.
            await self._put_off(refund, RefundStatus.REFUSED, "no approved payment of this order is known")
            return None
        try:
            outcome = await self._gateway.refund(refund.payment_id)
            if outcome is not RefundOutcome.SUCCEEDED:
                await self._put_off(refund, RefundStatus.REFUSED, "the payment provider refuses the refund")
                return None
        except PaymentTimeoutError as error:
            await self._put_off(
                refund, RefundStatus.PENDING, str(error) or "the payment provider did not answer in time"
            )
            return None
        except PaymentProviderError as error:
            await self._put_off(refund, RefundStatus.PENDING, str(error) or "the payment provider failed")
            return None
        return await self._finish(refund)

    async def _put_off(self, refund: Refund, status: RefundStatus, said: str) -> None:
        error = readable(said)
        _log.warning(
            "refund not made yet", order_id=str(refund.order_id), status=status, attempts=refund.attempts, error=error
        )
        async with self._database.connection() as connection:
            await refunds.put(connection, refund.order_id, status, error, self._now())

    async def _finish(self, refund: Refund) -> Order:
        async with self._database.transaction() as connection:
            order = await orders.lock(connection, refund.order_id)
            if order.status is not OrderStatus.REFUNDING:
                # Another replica asked at the same time, got the same answer, and was faster.
                return order
            refunded = await self._transitions.apply(
                connection,
                order,
                OrderStatus.REFUNDED,
                actor_id=refund.actor_id,
                reason=refund.reason,
                restock=refund.restock,
            )
            now = self._now()
            acts.refunded(connection, refunded, refund, now)
            await refunds.put(connection, refund.order_id, RefundStatus.SUCCEEDED, "", now)
            await idempotency.finish(connection, refund.actor_id, refund.idempotency_key, encode(ended_with(refunded)))
        return refunded
