"""Products and stock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from order_service.domain.errors import OutOfStockError, StaleVersionError, UnknownProductError
from order_service.domain.money import Money
from order_service.domain.order import OrderLine


@dataclass(frozen=True, slots=True)
class Product:
    """Something that can be ordered while it is available."""

    id: UUID
    sku: str
    name: str
    price: Money
    available: int
    version: int
    created_at: datetime

    def expect(self, version: int | None) -> None:
        """Check a conditional change.

        Raises:
            StaleVersionError: `version` is not None and not the current one.
        """
        if version is not None and version != self.version:
            raise StaleVersionError


def demand(lines: Iterable[tuple[UUID, int]]) -> dict[UUID, int]:
    """How many pieces of each product the lines want together, in the order in which products first appear."""
    wanted: dict[UUID, int] = {}
    for product_id, quantity in lines:
        wanted[product_id] = wanted.get(product_id, 0) + quantity
    return wanted


def reserve(wanted: Mapping[UUID, int], products: Sequence[Product]) -> tuple[tuple[OrderLine, ...], Money]:
    """Turn what is wanted into priced order lines and their total.

    Raises:
        UnknownProductError: a product does not exist.
        OutOfStockError: naming every product with too little stock.
        MixedCurrenciesError: the products do not share a currency.
    """
    by_id = {product.id: product for product in products}
    if missing := [product_id for product_id in wanted if product_id not in by_id]:
        raise UnknownProductError("unknown: " + ", ".join(map(str, missing)))
    short = {str(i): str(by_id[i].available) for i, quantity in wanted.items() if by_id[i].available < quantity}
    if short:
        raise OutOfStockError("not enough stock of " + ", ".join(short), **short)
    lines = tuple(OrderLine(i, by_id[i].name, quantity, by_id[i].price) for i, quantity in wanted.items())
    total = lines[0].total
    for line in lines[1:]:
        total += line.total
    return lines, total
