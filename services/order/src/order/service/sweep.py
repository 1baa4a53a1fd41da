"""Background work of every replica: expire unpaid orders, settle payments, finish refunds, forget old keys."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog
from chassis.database import Database

from order.repository import idempotency
from order.service.catalog import CatalogUseCases
from order.service.orders import OrderUseCases
from order.service.payments import PaymentUseCases
from order.service.refunds import RefundUseCases

# Longer than a provider's answer takes, so that attempts under way are left to who waits for them.
STUCK_AFTER = timedelta(seconds=30)
KEY_BATCH = 1000
_FORGET_EVERY_ROUNDS = 60
_FAILURES = "backend_sweep_failures_total"

_log = structlog.get_logger(__name__)


class Sweep:
    """Runs until cancelled; a step that fails or waits keeps no other from its turn, is counted, and tried again.

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
        """Loop until cancelled: each step by itself, so that one that waits (for a provider, a lock) stops no other."""
        async with asyncio.TaskGroup() as steps:
            for what, step, every in (
                ("orders expired", self._orders.expire, 1),
                ("stuck payments settled", lambda: self._payments.settle_stuck(STUCK_AFTER), 1),
                ("refunds finished", self._refunds.finish_due, 1),
                ("products made findable", self._catalog.fill_search_keys, 1),
                ("old keys forgotten", self._forget_keys, _FORGET_EVERY_ROUNDS),
            ):
                steps.create_task(self._again_and_again(what, step, self._interval * every))

    async def _again_and_again(self, what: str, step: Callable[[], Awaitable[int]], interval: float) -> None:
        while True:
            await asyncio.sleep(interval * random.uniform(0.8, 1.2))
            await self._step(what, step)

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
        count = 0
        while True:
            async with self._database.transaction() as connection:
                forgotten = await idempotency.forget(connection, self._now() - self._key_retention, KEY_BATCH)
            count += forgotten
            if forgotten < KEY_BATCH:
                return count
