"""Products and stock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from order.domain.errors import (
    OrderTooLargeError,
    OutOfStockError,
    StaleVersionError,
    StockBelowZeroError,
    StockTooLargeError,
    UnknownProductError,
)
from order.domain.money import MAX_MINOR, Money
from order.domain.order import OrderLine

# The most pieces of one product that an adjustment leaves; what orders give back may come on top.
MAX_STOCK = 1_000_000_000_000


@dataclass(frozen=True, slots=True)
class Product:
    """Something that can be ordered while it is available."""

    id: UUID
    sku: str
    name: str
    price: Money
    available: int
    # Of everything but the stock, which every sale changes and which has a version of its own.
    version: int
    stock_version: int
    created_at: datetime

    @property
    def revision(self) -> int:
        """Raised by every change of any kind: what copies of the whole are ordered by."""
        return self.version + self.stock_version

    def require_adjustable(self, delta: int) -> None:
        """Whether so many pieces may be added, or (negative) taken away.

        Raises:
            StockBelowZeroError, StockTooLargeError: no.
        """
        after = self.available + delta
        if after < 0:
            raise StockBelowZeroError(f"only {self.available} available", available=str(self.available))
        if delta > 0 and after > MAX_STOCK:
            raise StockTooLargeError(f"at most {MAX_STOCK} pieces of a product", maximum=str(MAX_STOCK))

    def require_version(self, version: int | None) -> None:
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
        OrderTooLargeError: they come to more than an order may.
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
    if total.amount_minor > MAX_MINOR:
        raise OrderTooLargeError(
            f"an order may come to {MAX_MINOR} in the minor unit of its currency, this one would come to "
            f"{total.amount_minor}",
            maximum=str(MAX_MINOR),
        )
    return lines, total
