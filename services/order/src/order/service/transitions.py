"""One step of an order, with everything that goes with it: its history, its event, the stock, the caches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chassis.cache import VersionedCache
from chassis.database import Transaction

from order.domain.order import RELEASES_STOCK, Order, OrderStatus, Shipment, step
from order.domain.product import demand
from order.metrics import TRANSITIONS_MADE, step_name
from order.repository import orders, products
from order.service import events


@dataclass(frozen=True, slots=True)
class Caches:
    """The hot records; floors are raised inside the transaction that changes them."""

    orders: VersionedCache
    products: VersionedCache


class Transitions:
    """Makes steps inside the transactions of the use cases.

    Args:
        caches: hot orders and products.
        now: the clock, UTC.
    """

    def __init__(self, caches: Caches, now: Callable[[], datetime]) -> None:
        self.caches = caches
        self._now = now

    async def apply(
        self,
        connection: Transaction,
        order: Order,
        status: OrderStatus,
        *,
        actor_id: UUID | None,
        reason: str,
        restock: bool = False,
        shipment: Shipment | None = None,
    ) -> Order:
        """The order after the step; its stock comes back when `restock` or the new status says so.

        Raises:
            IllegalTransitionError: the state machine does not allow it.
        """
        now = self._now()
        changed, transition = step(order, status, actor_id=actor_id, reason=reason, now=now, shipment=shipment)
        await orders.update(connection, changed, transition)
        if (event := events.of_step(changed, transition)) is not None:
            connection.record(order.id, event, now)
        TRANSITIONS_MADE.add(step_name(order.status, status))
        if restock or status in RELEASES_STOCK:
            back = demand((line.product_id, line.quantity) for line in order.lines)
            await products.lock_all(connection, back)
            await self.change_stock(connection, back, now)
        await self.caches.orders.raise_floor({str(order.id): changed.version})
        return changed

    async def change_stock(self, connection: Transaction, deltas: Mapping[UUID, int], now: datetime) -> None:
        """Add the deltas to the stock of products that the caller has locked."""
        changed = await products.change_stock(connection, deltas, now)
        for product in changed:
            connection.record(product.id, events.stock_changed(product, deltas[product.id]), now)
        await self.caches.products.raise_floor({str(product.id): product.revision for product in changed})
