"""What the Order service tells: each change once, in its own transaction, and nothing of what was refused."""

from __future__ import annotations

import uuid
from datetime import timedelta

import goldens
import pytest
from chassis.cache import VersionedCache
from chassis.database import Database
from chassis.events import outbox
from chassis.events.event import Event
from chassis.ids import uuid7
from contracts.order.v1 import events_pb2, order_pb2
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from order.domain.errors import IllegalTransitionError, OutOfStockError, PaymentDeclinedError, PaymentProviderError
from order.domain.money import Money
from order.domain.order import Shipment
from order.gateways.payment_sandbox import PaymentSandbox
from order.service.catalog import CatalogUseCases
from order.service.orders import Actor, OrderUseCases
from order.service.replay import IdempotentRequest
from order_use_cases import Clock, new_product, payments_of, refunds_of

Replicas = tuple[Clock, list[OrderUseCases]]


async def events(database: Database, *subjects: str) -> list[Event]:
    """All that was told of some subjects, in its order."""
    async with database.connection() as connection:
        page = await outbox.unpublished(connection, "order", 0, 1000)
    return [row.event for row in (page.rows if page else ()) if row.event.subject in subjects]


async def told(database: Database, subject: str) -> list[Message]:
    """The messages of all that was told of a subject, in its order."""
    return [
        GetMessageClass(events_pb2.DESCRIPTOR.message_types_by_name[event.type.rpartition(".")[2]]).FromString(
            event.data
        )
        for event in await events(database, subject)
    ]


def names(messages: list[Message]) -> list[str]:
    return [message.DESCRIPTOR.name for message in messages]


def request(user: uuid.UUID) -> IdempotentRequest:
    key = uuid.uuid4().hex
    return IdempotentRequest(user, key, key.encode())


async def test_a_life_of_an_order_is_told_step_by_step(database: Database, replicas: Replicas) -> None:
    clock, (one, _) = replicas
    sandbox, user, staff = PaymentSandbox(database), uuid7(), uuid7()
    paying, refunding = payments_of(database, one, clock, sandbox), refunds_of(database, one, clock, sandbox)
    product = await new_product(database, stock=5)
    ordering = request(user)
    order, _ = await one.create(ordering, [(product.id, 2)])
    # Neither an answer again nor what is refused is told.
    assert await one.create(ordering, [(product.id, 2)]) == (order, True)
    with pytest.raises(OutOfStockError):
        await one.create(request(user), [(product.id, 9)])
    for token, error in (("tok_declined", PaymentDeclinedError), ("tok_error", PaymentProviderError)):
        with pytest.raises(error):
            await paying.pay(request(user), order.id, token, None)
    await paying.pay(request(user), order.id, "tok_approved", None)
    await one.ship(order.id, Actor(staff), "DHL", "00340434161094042557", None)
    with pytest.raises(IllegalTransitionError):
        await one.ship(order.id, Actor(staff), "UPS", "1Z", None)
    await one.deliver(order.id, Actor(staff), None)
    await refunding.refund(request(staff), order.id, "broken", True, None)

    of_order = await told(database, f"order/{order.id}")
    assert names(of_order) == [
        "OrderPlaced", "PaymentFailed", "PaymentFailed", "OrderPaid", "OrderShipped", "OrderDelivered", "OrderRefunded",
    ]  # fmt: skip
    placed, declined, not_made, paid, shipped, _, refunded = of_order
    assert isinstance(placed, events_pb2.OrderPlaced)
    assert (placed.order.id, placed.order.user_id, placed.order.version) == (str(order.id), str(user), 1)
    assert isinstance(declined, events_pb2.PaymentFailed)
    assert isinstance(not_made, events_pb2.PaymentFailed)
    assert declined.failure == events_pb2.PAYMENT_FAILURE_DECLINED
    assert not_made.failure == events_pb2.PAYMENT_FAILURE_NOT_MADE
    assert (declined.order_id, declined.user_id) == (str(order.id), str(user))
    assert (declined.amount.amount_minor, declined.amount.currency) == (200, "EUR")
    assert isinstance(paid, events_pb2.OrderPaid)
    assert (paid.order.status, paid.order.version) == (order_pb2.ORDER_STATUS_PAID, 2)
    assert isinstance(shipped, events_pb2.OrderShipped)
    assert (shipped.carrier, shipped.tracking_number) == ("DHL", "00340434161094042557")
    assert isinstance(refunded, events_pb2.OrderRefunded)
    assert (refunded.actor_id, refunded.reason) == (str(staff), "broken")

    of_product = await told(database, f"product/{product.id}")
    assert [(m.delta, m.available, m.stock_version) for m in of_product if isinstance(m, events_pb2.StockChanged)] == [
        (-2, 3, 2),
        (2, 5, 3),
    ]
    goldens.check("events/an order that is refunded.txt", goldens.told(await events(database, f"order/{order.id}")))
    # The history has it as well, apart from the reason.
    history = await one.history(order.id)
    assert [step.shipment for step in history if step.shipment] == [Shipment("DHL", "00340434161094042557")]


async def test_an_order_that_is_not_paid_is_told_to_be_cancelled_or_expired(
    database: Database, replicas: Replicas
) -> None:
    clock, (one, _) = replicas
    user, product = uuid7(), await new_product(database, stock=5)
    cancelled, _ = await one.create(request(user), [(product.id, 1)])
    expired, _ = await one.create(request(user), [(product.id, 1)])
    await one.cancel(cancelled.id, Actor(user), "changed my mind", None)
    clock.now += timedelta(hours=1)
    assert await one.expire() == 1
    of_cancelled = await told(database, f"order/{cancelled.id}")
    assert names(of_cancelled) == ["OrderPlaced", "OrderCancelled"]
    last = of_cancelled[-1]
    assert isinstance(last, events_pb2.OrderCancelled)
    assert (last.actor_id, last.reason) == (str(user), "changed my mind")
    assert names(await told(database, f"order/{expired.id}")) == ["OrderPlaced", "OrderExpired"]
    assert names(await told(database, f"product/{product.id}")) == ["StockChanged"] * 4
    subjects = (f"order/{cancelled.id}", f"order/{expired.id}")
    goldens.check("events/orders that are not paid.txt", goldens.told(await events(database, *subjects)))


async def test_a_product_is_told_with_its_name_price_and_stock(database: Database, replicas: Replicas) -> None:
    clock, (one, _) = replicas
    cache: VersionedCache = one._transitions.caches.products
    catalog, actor = CatalogUseCases(database=database, cache=cache, now=clock, new_id=uuid7), uuid7()
    product = await catalog.create(f"E-{uuid.uuid4().hex[:20].upper()}", "thing", Money(100, "EUR"), 5, actor)
    await catalog.update(product.id, "other thing", None, None)
    adjusting = request(actor)
    for _ in range(2):
        await catalog.adjust_stock(adjusting, product.id, 3, "counted")
    messages = await told(database, f"product/{product.id}")
    assert names(messages) == ["ProductChanged", "StockChanged", "ProductChanged", "StockChanged"]
    new, _, changed, counted = messages
    assert isinstance(new, events_pb2.ProductChanged)
    assert (new.product.name, new.product.version, new.product.available) == ("thing", 1, 5)
    assert isinstance(changed, events_pb2.ProductChanged)
    assert (changed.product.name, changed.product.version) == ("other thing", 2)
    assert isinstance(counted, events_pb2.StockChanged)
    assert (counted.delta, counted.available) == (3, 8)
    goldens.check("events/a product.txt", goldens.told(await events(database, f"product/{product.id}")))
