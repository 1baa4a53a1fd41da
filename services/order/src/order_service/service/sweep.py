"""Background work of every replica: expire unpaid orders, settle payments, finish refunds, forget old keys."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog
from chassis.database import Database

from order_service.repository import idempotency
from order_service.service.catalog import CatalogUseCases
from order_service.service.orders import OrderUseCases
from order_service.service.payments import PaymentUseCases
from order_service.service.refunds import RefundUseCases

# Longer than a provider's answer takes, so that attempts under way are left to who waits for them.
STUCK_AFTER = timedelta(seconds=30)
_FORGET_EVERY_ROUNDS = 600
_FAILURES = "backend_sweep_failures_total"

_log = structlog.get_logger(__name__)


class Sweep:
    """Runs until cancelled; a step that fails is logged and counted, keeps no other from its turn, and is tried again.

    Args:
        orders, payments, refunds, catalog: the use cases it drives.
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
        refunds: RefundUseCases,
        catalog: CatalogUseCases,
        database: Database,
        now: Callable[[], datetime],
        interval: float,
        key_retention: timedelta,
    ) -> None:
        self._orders = orders
        self._payments = payments
        self._refunds = refunds
        self._catalog = catalog
        self._database = database
        self._now = now
        self._interval = interval
        self._key_retention = key_retention
        self._failures: Counter[str] = Counter()

    async def run(self) -> None:
        """Loop until cancelled."""
        rounds = 0
        while True:
            await asyncio.sleep(self._interval * random.uniform(0.8, 1.2))
            await self.once()
            if rounds % _FORGET_EVERY_ROUNDS == 0:
                await self._step("old keys forgotten", self._forget_keys)
            rounds += 1

    async def once(self) -> None:
        """One round: everything that is due."""
        await self._step("orders expired", self._orders.expire)
        await self._step("stuck payments settled", lambda: self._payments.settle_stuck(STUCK_AFTER))
        await self._step("refunds finished", self._refunds.finish_due)
        await self._step("products made findable", self._catalog.fill_search_keys)

    def metrics(self) -> str:
        """Failed steps in the Prometheus text format; none before the first."""
        lines = [f'{_FAILURES}{{step="{step}"}} {count}\n' for step, count in sorted(self._failures.items())]
        return "".join([f"# HELP {_FAILURES} Rounds in which a step failed\n# TYPE {_FAILURES} counter\n", *lines])

    async def _step(self, what: str, step: Callable[[], Awaitable[int]]) -> None:
        try:
            count = await step()
        except Exception:
            self._failures[what] += 1
            _log.exception("sweep failed", step=what)
        else:
            if count:
                _log.info(what, count=count)

    async def _forget_keys(self) -> int:
        async with self._database.transaction() as connection:
            return await idempotency.forget(connection, self._now() - self._key_retention)
