"""Products, for everybody and for those who keep the catalog."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from chassis.errors import FieldViolation, ServiceError
from chassis.http.answers import is_current, json_answer, matching, not_modified
from contracts.bff.v1 import models, operations
from contracts.common.v1 import money_pb2, paging_pb2
from contracts.order.v1 import catalog_pb2
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from bff import shapes

if TYPE_CHECKING:
    from contracts.order.v1.catalog_pb2_grpc import CatalogServiceAsyncStub


class CatalogHandlers:
    """listProducts, getProduct, createProduct, updateProduct, adjustStock."""

    def __init__(self, catalog: CatalogServiceAsyncStub) -> None:
        self._catalog = catalog

    async def list_products(self, query: operations.ListProductsQuery) -> Response:
        """GET /v1/products."""
        request = catalog_pb2.ListProductsRequest(
            page=paging_pb2.PageRequest(limit=query.limit, cursor=query.cursor or ""), search=query.q or ""
        )
        page = await self._catalog.ListProducts(request)
        items = [shapes.product(product) for product in page.products]
        return json_answer(models.ProductPage(items=items, next_cursor=page.next_cursor or None))

    async def get_product(self, product_id: str, headers: operations.GetProductHeaders) -> Response:
        """GET /v1/products/{product_id}."""
        product = await self._catalog.GetProduct(catalog_pb2.GetProductRequest(id=product_id))
        if is_current(headers.if_none_match, _version(product)):
            return not_modified(_version(product))
        return _product(product)

    async def create_product(self, body: models.CreateProductRequest) -> Response:
        """POST /v1/admin/products."""
        request = catalog_pb2.CreateProductRequest(
            sku=body.sku, name=body.name, price=_money(body.price), initial_stock=body.initial_stock
        )
        product = await self._catalog.CreateProduct(request)
        location = {"location": f"/v1/products/{product.id}"}
        return _product(product, status=201, headers=location)

    async def update_product(
        self, product_id: str, body: models.UpdateProductRequest, headers: operations.UpdateProductHeaders
    ) -> Response:
        """PATCH /v1/admin/products/{product_id}."""
        if body.name is UNSET and body.price is UNSET:
            raise ServiceError("INVALID_ARGUMENT", violations=(FieldViolation("", "name or price is required"),))
        request = catalog_pb2.UpdateProductRequest(
            id=product_id,
            name=None if body.name is UNSET else body.name,
            price=None if body.price is UNSET else _money(body.price),
        )
        allowed = _of_description(headers.if_match)
        product = await matching(allowed, request, lambda: self._catalog.UpdateProduct(request))
        return _product(product)

    async def adjust_stock(
        self, product_id: str, body: models.StockAdjustment, headers: operations.AdjustStockHeaders
    ) -> Response:
        """POST /v1/admin/products/{product_id}/stock."""
        request = catalog_pb2.AdjustStockRequest(
            id=product_id, delta=body.delta, reason=body.reason, idempotency_key=headers.idempotency_key
        )
        result = await self._catalog.AdjustStock(request)
        replayed = {"idempotency-replayed": "true"} if result.replayed else {}
        return _product(result.product, headers=replayed)


def _money(value: models.Price) -> money_pb2.Money:
    return money_pb2.Money(amount_minor=value.amount_minor, currency=value.currency)


# A product's entity tag has two parts: the version of its description, and that of its stock.
_TAG = re.compile(r'"([0-9]{1,18})\.[0-9]{1,18}"')


def _version(product: catalog_pb2.Product) -> str:
    return f"{product.version}.{product.stock_version}"


def _of_description(if_match: str | UnsetType) -> str | UnsetType:
    """If-Match with the first part of each tag only: the rest is about stock, which a change leaves alone."""
    return if_match if isinstance(if_match, UnsetType) else _TAG.sub(r'"\1"', if_match)


def _product(product: catalog_pb2.Product, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return json_answer(shapes.product(product), status=status, version=_version(product), headers=headers)
