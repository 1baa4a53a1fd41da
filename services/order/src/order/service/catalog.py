"""Use cases of the catalog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from chassis.cache import VersionedCache
from chassis.database import Database
from contracts.order.v1 import catalog_pb2

from order.domain.money import Money
from order.domain.product import Product
from order.repository import idempotency, products
from order.service import acts, events, records
from order.service.replay import IdempotentRequest
from order.service.stored import decode_product, encode_product

SEARCH_KEY_BATCH = 500


class CatalogUseCases:
    """Owns the transactions around products.

    Args:
        database: the order database.
        cache: hot products.
        now: the clock, UTC.
        new_id: makes time-ordered ids.
    """

    def __init__(
        self, *, database: Database, cache: VersionedCache, now: Callable[[], datetime], new_id: Callable[[], UUID]
    ) -> None:
        self._database = database
        self._cache = cache
        self._now = now
        self._new_id = new_id

    async def get(self, product_id: UUID) -> Product:
        """One product.

        Raises:
            NotFoundError: there is none.
        """
        async with self._database.connection() as connection:
            return await products.get(connection, product_id)

    async def shown(self, product_id: str) -> catalog_pb2.Product:
        """One product as it is shown, from the cache when it is there.

        Raises:
            NotFoundError: there is none.
        """
        cached = await self._cache.get(product_id)
        if cached is not None:
            return catalog_pb2.Product.FromString(cached)
        found = await self.get(UUID(product_id))
        product = records.product(found)
        await self._cache.offer(product.id, found.revision, product.SerializeToString())
        return product

    async def page(self, search: str, after: tuple[str, UUID] | None, limit: int) -> list[Product]:
        """Up to `limit` products by name, after the keyset (name, id)."""
        async with self._database.connection() as connection:
            return await products.page(connection, search, after, limit)

    async def create(self, sku: str, name: str, price: Money, initial_stock: int, actor_id: UUID) -> Product:
        """Add a product.

        Raises:
            SkuTakenError: another product has the SKU.
        """
        now = self._now()
        product = Product(self._new_id(), sku, name, price, initial_stock, version=1, stock_version=1, created_at=now)
        async with self._database.transaction() as connection:
            created = await products.insert(connection, product)
            connection.record(created.id, events.product_changed(created), now)
            acts.product_created(connection, created, now)
            if initial_stock:
                await products.record_stock_change(
                    connection, self._new_id(), created.id, initial_stock, "initial stock", actor_id, now
                )
                connection.record(created.id, events.stock_changed(created, initial_stock), now)
        return created

    async def update(
        self, product_id: UUID, name: str | None, price: Money | None, expected_version: int | None
    ) -> Product:
        """Change name or price; None leaves it.

        Raises:
            NotFoundError, StaleVersionError: as named.
        """
        now = self._now()
        async with self._database.transaction() as connection:
            product = await products.lock(connection, product_id)
            product.require_version(expected_version)
            wanted = replace(product, name=name or product.name, price=price or product.price)
            changed = await products.update(connection, wanted, now)
            connection.record(product_id, events.product_changed(changed), now)
            acts.product_changed(connection, product, changed, now)
            await self._cache.raise_floor({str(changed.id): changed.revision})
        return changed

    async def adjust_stock(
        self, request: IdempotentRequest, product_id: UUID, delta: int, reason: str
    ) -> tuple[Product, bool]:
        """Add `delta` pieces (negative removes) and record who did it and why; once for each idempotency key.

        Returns:
            The product, and whether it is an earlier request's answer again.

        Raises:
            NotFoundError: there is no such product.
            StockBelowZeroError, StockTooLargeError: see `Product.require_adjustable`.
            IdempotencyKeyReusedError, RequestInProgressError: see repository.idempotency.
        """
        now = self._now()
        async with self._database.transaction() as connection:
            stored = await idempotency.claim(connection, request.user_id, request.key, request.request_hash, now)
            if stored:
                return decode_product(stored), True
            product = await products.lock(connection, product_id)
            product.require_adjustable(delta)
            (changed,) = await products.change_stock(connection, {product_id: delta}, now)
            await products.record_stock_change(
                connection, self._new_id(), product_id, delta, reason, request.user_id, now
            )
            connection.record(product_id, events.stock_changed(changed, delta), now)
            acts.stock_changed(connection, product, changed, reason, now)
            # A product has no history from which the answer could be rebuilt, so the answer is stored, in the database only.
            await idempotency.finish(connection, request.user_id, request.key, encode_product(changed))
            await self._cache.raise_floor({str(changed.id): changed.revision})
        return changed, False

    async def fill_search_keys(self) -> int:
        """Give a search key to products that were stored before there was one; how many there were."""
        count = 0
        while True:
            async with self._database.transaction() as connection:
                filled = await products.fill_search_keys(connection, SEARCH_KEY_BATCH)
            count += filled
            if filled < SEARCH_KEY_BATCH:
                return count
