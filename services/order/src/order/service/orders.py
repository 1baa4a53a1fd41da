"""Use cases of orders: place, read, list, and every transition that moves no money."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import structlog
from chassis.database import Database
from contracts.order.v1 import order_pb2

from order.domain.errors import NotFoundError, PaymentInProgressError
from order.domain.money import Money
from order.domain.order import Order, OrderStatus, Shipment, Transition
from order.domain.product import demand, reserve
from order.domain.unpaid import UnpaidLimits
from order.metrics import PLACED, TRANSITIONS_MADE
from order.repository import idempotency, orders, payments, products
from order.repository.orders import OrderFilter
from order.service import events, records
from order.service.replay import IdempotentRequest, ReplayCache, first_answer
from order.service.stored import Outcome, decode, encode
from order.service.transitions import Transitions

EXPIRY_BATCH = 50

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and whether they may cancel orders of others."""

    user_id: UUID
    cancels_any: bool = False


class Reader(NamedTuple):
    """Who reads, and whether they may see orders of others. The id is text, as in tokens and cached orders."""

    user_id: str
    sees_any: bool = False

    def require_sight(self, owner_id: str) -> None:
        """Refuse those who may not see an order of that user.

        Raises:
            NotFoundError: to anybody else there is no such order.
        """
        if owner_id != self.user_id and not self.sees_any:
            raise NotFoundError


class OrderUseCases:
    """Owns the transactions around orders.

    Args:
        database: the order database.
        transitions: makes the steps, and has the cache of hot orders.
        replays: the fast path of idempotency.
        now: the clock, UTC.
        new_id: makes time-ordered ids.
        payment_window: how long an unpaid order holds its stock.
        unpaid: how much one user may reserve without paying.
    """

    def __init__(
        self,
        *,
        database: Database,
        transitions: Transitions,
        replays: ReplayCache,
        now: Callable[[], datetime],
        new_id: Callable[[], UUID],
        payment_window: timedelta,
        unpaid: UnpaidLimits,
    ) -> None:
        self._database = database
        self._transitions = transitions
        self._cache = transitions.caches.orders
        self._replays = replays
        self._now = now
        self._new_id = new_id
        self._payment_window = payment_window
        self._unpaid = unpaid

    async def create(self, request: IdempotentRequest, lines: Sequence[tuple[UUID, int]]) -> tuple[Order, bool]:
        """Reserve stock and place an order, once for each idempotency key.

        Returns:
            The order, and whether it is an earlier request's answer again.

        Raises:
            UnknownProductError, OutOfStockError, MixedCurrenciesError, OrderTooLargeError, TooManyUnpaidOrdersError,
            TooMuchUnpaidError: the order cannot be placed; nothing changed.
            IdempotencyKeyReusedError, RequestInProgressError: see repository.idempotency.
        """
        if (known := await self._replays.get(request)) is not None:
            async with self._database.connection() as connection:
                return await first_answer(connection, known), True
        now, order_id = self._now(), self._new_id()
        outcome = Outcome(order_id, version=1)
        async with self._database.transaction() as connection:
            stored = await idempotency.claim_in_turn(
                connection, request.user_id, request.key, request.request_hash, now, encode(outcome)
            )
            if stored:
                return await first_answer(connection, decode(stored)), True
            wanted = demand(lines)
            since = now - max(self._unpaid.window, self._payment_window)
            found, unpaid = await products.lock_to_order(
                connection, wanted, request.user_id, since, self._unpaid.orders_to_look_at
            )
            order_lines, total = reserve(wanted, found)
            self._unpaid.check(unpaid, wanted)
            order = Order(
                id=order_id,
                user_id=request.user_id,
                status=OrderStatus.PENDING_PAYMENT,
                lines=order_lines,
                total=total,
                version=outcome.version,
                expires_at=now + self._payment_window,
                created_at=now,
                updated_at=now,
            )
            await orders.insert(connection, order)
            connection.record(order_id, events.placed(order), now)
            TRANSITIONS_MADE.add(PLACED)
            await self._transitions.change_stock(connection, {i: -quantity for i, quantity in wanted.items()}, now)
        await self._replays.put(request, outcome)
        return order, False

    async def get(self, order_id: UUID, reader: Reader) -> Order:
        """One order.

        Raises:
            NotFoundError: there is none, or it is somebody else's.
        """
        async with self._database.connection() as connection:
            order = await orders.get(connection, order_id)
        reader.require_sight(str(order.user_id))
        return order

    async def shown(self, order_id: str, reader: Reader) -> order_pb2.Order:
        """One order as it is shown. This is the hot path: of a cached order only the owner is read.

        Raises:
            NotFoundError: there is none, or it is somebody else's.
        """
        cached = await self._cache.get(order_id)
        if cached is not None:
            order = order_pb2.Order.FromString(cached)
            reader.require_sight(order.user_id)
            return order
        order = records.order(await self.get(UUID(order_id), reader))
        await self._cache.offer(order.id, order.version, order.SerializeToString())
        return order

    async def page(
        self, where: OrderFilter, before: tuple[datetime, UUID] | None, limit: int
    ) -> tuple[list[Order], bool]:
        """Up to `limit` orders, newest first, below the keyset (created_at, id), and whether there are more."""
        async with self._database.connection() as connection:
            return await orders.page(connection, where, before, limit)

    async def summary(self, user_id: UUID, newest: int) -> tuple[list[Order], list[Money]]:
        """A user's newest orders and what they have spent, by currency."""
        async with self._database.connection() as connection:
            newest_orders, _ = await orders.page(connection, OrderFilter(user_id=user_id), None, newest)
            return newest_orders, await orders.spending(connection, user_id)

    async def history(self, order_id: UUID) -> list[Transition]:
        """Every transition of an order, oldest first.

        Raises:
            NotFoundError: there is no such order.
        """
        async with self._database.connection() as connection:
            found = await orders.history(connection, order_id)
        if not found:
            raise NotFoundError
        return found

    async def cancel(self, order_id: UUID, actor: Actor, reason: str, expected_version: int | None) -> Order:
        """Cancel an unpaid order and give its stock back.

        Raises:
            NotFoundError, StaleVersionError, IllegalTransitionError: as named.
            PaymentInProgressError: it may be paid any moment.
        """
        async with self._database.transaction() as connection:
            order = await orders.lock(connection, order_id)
            if order.user_id != actor.user_id and not actor.cancels_any:
                raise NotFoundError
            order.require_version(expected_version)
            if await payments.processing(connection, order_id) is not None:
                raise PaymentInProgressError
            return await self._transitions.apply(
                connection, order, OrderStatus.CANCELLED, actor_id=actor.user_id, reason=reason
            )

    async def ship(
        self, order_id: UUID, actor: Actor, carrier: str, tracking_number: str, expected_version: int | None
    ) -> Order:
        """Ship a paid order.

        Raises:
            NotFoundError, StaleVersionError, IllegalTransitionError: as named.
        """
        # What a release before `Shipment` shows of it.
        reason = f"{carrier} {tracking_number}"
        shipment = Shipment(carrier, tracking_number)
        return await self._fulfil(order_id, actor, OrderStatus.SHIPPED, reason, expected_version, shipment)

    async def deliver(self, order_id: UUID, actor: Actor, expected_version: int | None) -> Order:
        """Record that a shipped order arrived.

        Raises:
            NotFoundError, StaleVersionError, IllegalTransitionError: as named.
        """
        return await self._fulfil(order_id, actor, OrderStatus.DELIVERED, "delivered", expected_version)

    async def expire(self) -> int:
        """Expire unpaid orders whose time is up and give their stock back; how many there were.

        Each order has a transaction of its own, so that one which cannot be expired does not hold up the others. Any number
        of replicas may do this at the same time: each skips the orders that another one has locked.
        """
        now = self._now()
        count = 0
        after: tuple[datetime, UUID] | None = None
        while True:
            async with self._database.connection() as connection:
                due = await orders.expired(connection, now, after, EXPIRY_BATCH)
            for _, order_id in due:
                try:
                    count += await self._expire(order_id, now)
                except Exception:
                    _log.exception("order not expired", order_id=str(order_id))
            if len(due) < EXPIRY_BATCH:
                return count
            after = due[-1]

    async def _expire(self, order_id: UUID, now: datetime) -> bool:
        async with self._database.transaction() as connection:
            order = await orders.lock_if_free(connection, order_id)
            if order is None or order.status is not OrderStatus.PENDING_PAYMENT or order.expires_at > now:
                return False
            # Asked again under the lock: a payment may have begun since the order was found.
            if await payments.processing(connection, order_id) is not None:
                return False
            await self._transitions.apply(
                connection, order, OrderStatus.EXPIRED, actor_id=None, reason="not paid in time"
            )
        return True

    async def _fulfil(
        self,
        order_id: UUID,
        actor: Actor,
        status: OrderStatus,
        reason: str,
        expected_version: int | None,
        shipment: Shipment | None = None,
    ) -> Order:
        async with self._database.transaction() as connection:
            order = await orders.lock(connection, order_id)
            order.require_version(expected_version)
            return await self._transitions.apply(
                connection, order, status, actor_id=actor.user_id, reason=reason, shipment=shipment
            )
