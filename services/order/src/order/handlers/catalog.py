"""CatalogService: protobuf to use cases and back."""

from __future__ import annotations

from uuid import UUID

from chassis import context
from chassis.cursors import CursorSigner
from contracts.order.v1 import catalog_pb2
from contracts.order.v1.catalog_pb2_grpc import CatalogServiceServicer

from order.domain.money import entered
from order.handlers import messages
from order.service import records
from order.service.catalog import CatalogUseCases


class CatalogHandlers(CatalogServiceServicer):
    """The servicer."""

    def __init__(self, catalog: CatalogUseCases, cursors: CursorSigner) -> None:
        self._catalog = catalog
        self._cursors = cursors

    async def ListProducts(
        self, request: catalog_pb2.ListProductsRequest, _context: object
    ) -> catalog_pb2.ListProductsResponse:
        """See the contract."""
        scope = f"products|{request.search}"
        key = self._cursors.decode(scope, request.page.cursor, length=2)
        limit = request.page.limit
        found = await self._catalog.page(request.search, (key[0], UUID(key[1])) if key else None, limit + 1)
        shown, more = found[:limit], len(found) > limit
        return catalog_pb2.ListProductsResponse(
            products=[records.product(product) for product in shown],
            next_cursor=self._cursors.encode(scope, [shown[-1].name, str(shown[-1].id)]) if more else "",
        )

    async def GetProduct(self, request: catalog_pb2.GetProductRequest, _context: object) -> catalog_pb2.Product:
        """See the contract."""
        return await self._catalog.shown(request.id)

    async def CreateProduct(self, request: catalog_pb2.CreateProductRequest, _context: object) -> catalog_pb2.Product:
        """See the contract."""
        price = entered(request.price.amount_minor, request.price.currency)
        actor_id = UUID(context.caller().user_id)
        return records.product(
            await self._catalog.create(request.sku, request.name, price, request.initial_stock, actor_id)
        )

    async def UpdateProduct(self, request: catalog_pb2.UpdateProductRequest, _context: object) -> catalog_pb2.Product:
        """See the contract."""
        price = entered(request.price.amount_minor, request.price.currency) if request.HasField("price") else None
        name = request.name if request.HasField("name") else None
        return records.product(await self._catalog.update(UUID(request.id), name, price, messages.version(request)))

    async def AdjustStock(self, request: catalog_pb2.AdjustStockRequest, _context: object) -> catalog_pb2.ProductResult:
        """See the contract."""
        product, replayed = await self._catalog.adjust_stock(
            messages.idempotent_request("stock", request, request.idempotency_key),
            UUID(request.id),
            request.delta,
            request.reason,
        )
        return catalog_pb2.ProductResult(product=records.product(product), replayed=replayed)
