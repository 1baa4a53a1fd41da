"""What is stored of the answer to an idempotency key's first request, as `order.v1.StoredOutcome`.

Releases before that message stored msgpack: of domain values, which one added field made unreadable. Such rows are read
for as long as they are kept (`IDEMPOTENCY_RETENTION_HOURS`); examples of all that was ever stored are in
tests/golden/stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from uuid import UUID

import msgspec
from contracts.common.v1.money_pb2 import Money as MoneyMessage
from contracts.order.v1.stored_pb2 import StoredOrderVersion, StoredOutcome, StoredPaymentDeclined, StoredProduct
from google.protobuf.timestamp_pb2 import Timestamp

from order.domain.money import Money
from order.domain.order import Order
from order.domain.product import Product

# The first byte of msgpack's maps and arrays is this or more; that of our messages, a tag, is less.
_MSGPACK = b"\x80"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the first request ended: with a version of an order, or with a declined payment."""

    # Releases before StoredOutcome stored the order itself.
    order: UUID | Order | None
    version: int = 0


class _MsgpackOutcome(msgspec.Struct, frozen=True, array_like=True):
    order: UUID | Order | None
    version: int = 0


_msgpack_outcome = msgspec.msgpack.Decoder(_MsgpackOutcome).decode
_msgpack_product = msgspec.msgpack.Decoder(Product).decode


def encode(outcome: Outcome) -> bytes:
    """What is stored of an outcome.

    Raises:
        ValueError: it holds an order instead of naming it.
    """
    match outcome.order:
        case None:
            stored = StoredOutcome(payment_declined=StoredPaymentDeclined())  # leaves out: order, product
        case UUID() as order_id:
            version = StoredOrderVersion(order_id=order_id.bytes, version=outcome.version)
            stored = StoredOutcome(order=version)  # leaves out: payment_declined, product
        case _:
            raise ValueError("an order is not copied any more")
    return stored.SerializeToString()


def decode(response: bytes) -> Outcome:
    """Read a stored outcome.

    Raises:
        ValueError: it is not the outcome of an order or a payment.
    """
    if response[:1] >= _MSGPACK:
        old = _msgpack_outcome(response)
        return Outcome(old.order, old.version)
    stored = StoredOutcome.FromString(response)
    match stored.WhichOneof("outcome"):
        case "order":
            return Outcome(UUID(bytes=stored.order.order_id), stored.order.version)
        case "payment_declined":
            return Outcome(None)
        case kind:
            raise ValueError(f"the stored outcome of another operation, {kind}")


def encode_product(product: Product) -> bytes:
    """What is stored of an adjusted product: at most 1 KiB."""
    created_at = Timestamp()
    created_at.FromDatetime(product.created_at)
    stored = StoredProduct(
        id=product.id.bytes,
        sku=product.sku,
        name=product.name,
        price=MoneyMessage(amount_minor=product.price.amount_minor, currency=product.price.currency),
        available=product.available,
        version=product.version,
        stock_version=product.stock_version,
        created_at=created_at,
    )
    return StoredOutcome(product=stored).SerializeToString()  # leaves out: order, payment_declined


def decode_product(response: bytes) -> Product:
    """Read a stored product.

    Raises:
        ValueError: it is the outcome of something else.
    """
    if response[:1] >= _MSGPACK:
        return _msgpack_product(response)
    stored = StoredOutcome.FromString(response)
    if not stored.HasField("product"):
        raise ValueError("the stored outcome of another operation")
    product = stored.product
    return Product(
        id=UUID(bytes=product.id),
        sku=product.sku,
        name=product.name,
        price=Money(product.price.amount_minor, product.price.currency),
        available=product.available,
        version=product.version,
        stock_version=product.stock_version,
        created_at=product.created_at.ToDatetime(tzinfo=UTC),
    )
