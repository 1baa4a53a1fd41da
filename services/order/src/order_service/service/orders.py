"""Use cases of orders: place, read, list, and every transition that is not a payment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from chassis.cache import VersionedCache
from chassis.database import Connection, Database

from order_service.domain.errors import NotFoundError, PaymentInProgressError
from order_service.domain.money import Money
from order_service.domain.order import RELEASES_STOCK, Order, OrderStatus, Transition, step
from order_service.domain.product import demand, reserve
from order_service.gateways.payment import PaymentGateway
from order_service.repository import idempotency, orders, payments, products
from order_service.repository.orders import OrderFilter
from order_service.service.replay import Keyed, Outcome, ReplayCache, decode, encode

EXPIRY_BATCH = 50


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and whether everybody's orders are theirs to see or to cancel."""

    user_id: UUID
    sees_any: bool = False
    cancels_any: bool = False


@dataclass(frozen=True, slots=True)
class Caches:
    """The hot records; floors are raised inside the transaction that changes them."""

    orders: VersionedCache
    products: VersionedCache


class OrderUseCases:
    """Owns the transactions around orders.

    Args:
        database: the order database.
        caches: hot orders and products.
        replays: the fast path of idempotency.
        gateway: the payment provider, for refunds.
        now: the clock, UTC.
        new_id: makes time-ordered ids.
        payment_window: how long an unpaid order holds its stock.
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
        payment_window: timedelta,
    ) -> None:
        self._database = database
        self._caches = caches
        self._replays = replays
        self._gateway = gateway
        self._now = now
        self._new_id = new_id
        self._payment_window = payment_window

    async def create(self, request: Keyed, lines: Sequence[tuple[UUID, int]]) -> tuple[Order, bool]:
        """Reserve stock and place an order, once for each idempotency key.

        Returns:
            The order, and whether it is an earlier request's answer again.

        Raises:
            UnknownProductError, OutOfStockError, MixedCurrenciesError: the order cannot be placed; nothing changed.
            IdempotencyKeyReusedError, RequestInProgressError: see repository.idempotency.
        """
        if (known := await self._replays.get(request)) is not None:
            return known.order_or_raise(), True
        now = self._now()
        async with self._database.transaction() as connection:
            stored = await idempotency.claim(connection, request.user_id, request.key, request.request_hash)
            if stored:
                return decode(stored).order_or_raise(), True
            wanted = demand(lines)
            order_lines, total = reserve(wanted, await products.lock_all(connection, wanted))
            order = Order(
                id=self._new_id(),
                user_id=request.user_id,
                status=OrderStatus.PENDING_PAYMENT,
                lines=order_lines,
                total=total,
                version=1,
                expires_at=now + self._payment_window,
                created_at=now,
                updated_at=now,
            )
            await orders.insert(connection, order)
            outcome = Outcome(order)
            await idempotency.record(
                connection, request.user_id, request.key, request.request_hash, encode(outcome), now
            )
            await self._change_stock(connection, {i: -quantity for i, quantity in wanted.items()}, now)
        await self._replays.put(request, outcome)
        return order, False

    async def get(self, order_id: UUID, actor: Actor) -> Order:
        """One order.

        Raises:
            NotFoundError: there is none, or it is somebody else's.
        """
        async with self._database.connection() as connection:
            order = await orders.get(connection, order_id)
        _check_visible(order, actor)
        return order

    async def page(self, where: OrderFilter, before: UUID | None, limit: int) -> list[Order]:
        """Up to `limit` orders, newest first, below the keyset `before`."""
        async with self._database.connection() as connection:
            return await orders.page(connection, where, before, limit)

    async def summary(self, user_id: UUID, newest: int) -> tuple[list[Order], list[Money]]:
        """A user's newest orders and what they have spent, by currency."""
        async with self._database.connection() as connection:
            newest_orders = await orders.page(connection, OrderFilter(user_id=user_id), None, newest)
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
            order.expect(expected_version)
            if await payments.processing(connection, order_id) is not None:
                raise PaymentInProgressError
            return await self._transition(connection, order, OrderStatus.CANCELLED, actor.user_id, reason)

    async def ship(
        self, order_id: UUID, actor: Actor, carrier: str, tracking_number: str, expected_version: int | None
    ) -> Order:
        """Ship a paid order.

        Raises:
            NotFoundError, StaleVersionError, IllegalTransitionError: as named.
        """
        reason = f"{carrier} {tracking_number}"
        return await self._fulfil(order_id, actor, OrderStatus.SHIPPED, reason, expected_version)

    async def deliver(self, order_id: UUID, actor: Actor, expected_version: int | None) -> Order:
        """Record that a shipped order arrived.

        Raises:
            NotFoundError, StaleVersionError, IllegalTransitionError: as named.
        """
        return await self._fulfil(order_id, actor, OrderStatus.DELIVERED, "delivered", expected_version)

    async def refund(self, order_id: UUID, actor: Actor, reason: str, expected_version: int | None) -> Order:
        """Give the money of a paid or delivered order back, then its stock.

        The provider is called between two transactions, never inside one; its refund is idempotent, so a failure
        in between is mended by asking again.

        Raises:
            NotFoundError, StaleVersionError, IllegalTransitionError: as named.
            PaymentProviderError: the money could not be given back; the order is unchanged.
        """
        async with self._database.connection() as connection:
            order = await orders.get(connection, order_id)
            order.expect(expected_version)
            order.to(OrderStatus.REFUNDED, self._now())
            payment_id = await payments.approved_id(connection, order_id)
        if payment_id is not None:
            await self._gateway.refund(payment_id)
        return await self._fulfil(order_id, actor, OrderStatus.REFUNDED, reason, expected_version)

    async def expire(self) -> int:
        """Expire unpaid orders whose time is up and give their stock back; how many there were.

        Any number of replicas may do this at once: each takes rows that no other holds.
        """
        now = self._now()
        async with self._database.transaction() as connection:
            expired = await orders.lock_expired(connection, now, EXPIRY_BATCH)
            floors: dict[str, int] = {}
            back: dict[UUID, int] = {}
            for order in expired:
                changed, transition = step(
                    order, OrderStatus.EXPIRED, actor_id=None, reason="not paid in time", now=now
                )
                await orders.update(connection, changed, transition)
                floors[str(order.id)] = changed.version
                for line in order.lines:
                    back[line.product_id] = back.get(line.product_id, 0) + line.quantity
            if expired:
                await products.lock_all(connection, back)
                await self._caches.orders.raise_floor(floors)
                await self._change_stock(connection, back, now)
        return len(expired)

    async def _fulfil(
        self, order_id: UUID, actor: Actor, status: OrderStatus, reason: str, expected_version: int | None
    ) -> Order:
        async with self._database.transaction() as connection:
            order = await orders.lock(connection, order_id)
            order.expect(expected_version)
            return await self._transition(connection, order, status, actor.user_id, reason)

    async def _transition(
        self, connection: Connection, order: Order, status: OrderStatus, actor_id: UUID, reason: str
    ) -> Order:
        now = self._now()
        changed, transition = step(order, status, actor_id=actor_id, reason=reason, now=now)
        await orders.update(connection, changed, transition)
        if status in RELEASES_STOCK:
            back = demand((line.product_id, line.quantity) for line in order.lines)
            await products.lock_all(connection, back)
            await self._change_stock(connection, back, now)
        await self._caches.orders.raise_floor({str(order.id): changed.version})
        return changed

    async def _change_stock(self, connection: Connection, deltas: dict[UUID, int], now: datetime) -> None:
        changed = await products.change_stock(connection, deltas, now)
        await self._caches.products.raise_floor({str(product.id): product.version for product in changed})


def _check_visible(order: Order, actor: Actor) -> None:
    if order.user_id != actor.user_id and not actor.sees_any:
        raise NotFoundError
