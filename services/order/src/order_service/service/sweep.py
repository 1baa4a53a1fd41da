"""Background work of every replica: expire unpaid orders, settle stuck payments, forget old keys."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from chassis.database import Database

from order_service.repository import idempotency
from order_service.service.orders import EXPIRY_BATCH, OrderUseCases
from order_service.service.payments import PaymentUseCases

# Longer than any provider call may last, so that an attempt the provider has not seen never will be seen.
STUCK_AFTER = timedelta(seconds=30)
_FORGET_EVERY_ROUNDS = 600

_log = structlog.get_logger(__name__)


class Sweep:
    """Runs until cancelled; a failed round is logged and the next one tries again.

    Args:
        orders, payments: the use cases it drives.
        database: for the keys.
        now: the clock, UTC.
        interval: seconds between rounds; jitter keeps replicas apart.
        key_retention: how long an idempotency key is remembered.
    """

    def __init__(
        self,
        *,
        orders: OrderUseCases,
        payments: PaymentUseCases,
        database: Database,
        now: Callable[[], datetime],
        interval: float,
        key_retention: timedelta,
    ) -> None:
        self._orders = orders
        self._payments = payments
        self._database = database
        self._now = now
        self._interval = interval
        self._key_retention = key_retention

    async def run(self) -> None:
        """Loop until cancelled."""
        rounds = 0
        while True:
            await asyncio.sleep(self._interval * random.uniform(0.8, 1.2))
            try:
                await self.once()
                if rounds % _FORGET_EVERY_ROUNDS == 0:
                    await self._forget_keys()
            except Exception:
                _log.exception("sweep failed")
            rounds += 1

    async def once(self) -> None:
        """One round: everything that is due."""
        while (expired := await self._orders.expire()) == EXPIRY_BATCH:
            _log.info("orders expired", count=expired)
        if expired:
            _log.info("orders expired", count=expired)
        if settled := await self._payments.settle_stuck(STUCK_AFTER):
            _log.info("stuck payments settled", count=settled)

    async def _forget_keys(self) -> None:
        async with self._database.transaction() as connection:
            await idempotency.forget(connection, self._now() - self._key_retention)
