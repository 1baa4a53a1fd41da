"""Background work of every replica: expire unpaid orders, settle payments, finish refunds, forget old keys."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog
from chassis.database import Database
from chassis.errors import as_service_error
from chassis.metrics.families import Counter

from order.repository import idempotency
from order.service.catalog import CatalogUseCases
from order.service.orders import OrderUseCases
from order.service.payments import PaymentUseCases
from order.service.refunds import RefundUseCases

# Longer than a provider may take to answer, so that attempts under way are left to the requests that wait for them.
STUCK_AFTER = timedelta(seconds=30)
KEY_BATCH = 1000
_FORGET_EVERY_ROUNDS = 60
_EXPIRE, _SETTLE, _REFUND = "orders expired", "stuck payments settled", "refunds finished"
_FIND, _FORGET = "products made findable", "old keys forgotten"
# What a step meets while the database restarts.
_DOWN = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
_FAILURES = Counter(
    "backend_sweep_failures_total",
    "Rounds in which a step failed",
    step=(_EXPIRE, _SETTLE, _REFUND, _FIND, _FORGET),
)

_log = structlog.get_logger(__name__)


class Sweep:
    """Runs until cancelled. A step that fails or waits does not hold up the others; it is counted and tried again.

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

    async def run(self) -> None:
        """Loop until cancelled. Each step has a loop of its own: one that waits (for a provider, a lock) does not stop the others."""
        async with asyncio.TaskGroup() as steps:
            for what, step, every in (
                (_EXPIRE, self._orders.expire, 1),
                (_SETTLE, lambda: self._payments.settle_stuck(STUCK_AFTER), 1),
                (_REFUND, self._refunds.finish_due, 1),
                (_FIND, self._catalog.fill_search_keys, 1),
                (_FORGET, self._forget_keys, _FORGET_EVERY_ROUNDS),
            ):
                steps.create_task(self._again_and_again(what, step, self._interval * every))

    async def _again_and_again(self, what: str, step: Callable[[], Awaitable[int]], interval: float) -> None:
        while True:
            await asyncio.sleep(interval * random.uniform(0.8, 1.2))
            await self._step(what, step)

    async def _step(self, what: str, step: Callable[[], Awaitable[int]]) -> None:
        try:
            count = await step()
        except Exception as error:
            _FAILURES.add(what)
            known = as_service_error(error)
            if known is not None and known.reason in _DOWN:
                # It is tried again soon, and where it failed says nothing: what it needs is down.
                _log.warning("sweep put off", step=what, error=str(known))
            else:
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
