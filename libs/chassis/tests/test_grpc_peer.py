"""Calls to another service: what is tried again, what that may cost, and what the type checker sees."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from chassis.errors import ServiceError
from chassis.grpc.peer import Peer
from contracts.order.v1 import catalog_pb2, order_pb2
from contracts.order.v1.catalog_pb2_grpc import CatalogServiceStub
from contracts.order.v1.order_pb2_grpc import OrderServiceStub

if TYPE_CHECKING:
    from contracts.order.v1.order_pb2_grpc import OrderServiceAsyncStub

ID = "01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b21"


async def refused(call: Awaitable[object]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value


class FlakyChannel:
    """Every method is unavailable the first times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    def unary_unary(self, *_: Any) -> Any:
        return self._call

    unary_stream = unary_unary

    async def _call(self, request: Any, *, timeout: float | None, metadata: Any) -> order_pb2.Order:
        self.calls += 1
        if self.calls <= self.failures:
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "", None)
        return order_pb2.Order(id=ID)


async def test_what_the_contract_calls_idempotent_is_tried_three_times_and_all_else_once() -> None:
    once = {"CancelOrder", "ShipOrder", "DeliverOrder"}
    for method in order_pb2.DESCRIPTOR.services_by_name["OrderService"].methods:
        if method.name == "GetOrderHistory":
            continue
        channel = FlakyChannel(2)
        call = getattr(Peer(channel).stub(OrderServiceStub), method.name)
        if method.name in once:
            assert ((await refused(call(None))).reason, channel.calls) == ("UNAVAILABLE", 1), method.name
        else:
            assert (await call(None), channel.calls) == (order_pb2.Order(id=ID), 3), method.name
    channel = FlakyChannel(3)
    request = order_pb2.GetOrderRequest(id=ID)
    refusal = await refused(Peer(channel).stub(OrderServiceStub).GetOrder(request))
    assert (refusal.reason, channel.calls) == ("UNAVAILABLE", 3)


async def test_a_peer_that_fails_everybody_is_not_called_three_times_as_often() -> None:
    channel = FlakyChannel(10**6)
    peer = Peer(channel)
    # All stubs of a peer share what retries may cost.
    orders, catalog = peer.stub(OrderServiceStub), peer.stub(CatalogServiceStub)
    for _ in range(50):
        await refused(orders.GetOrder(order_pb2.GetOrderRequest(id=ID)))
        await refused(catalog.GetProduct(catalog_pb2.GetProductRequest(id=ID)))
    # A hundred calls, a fifth as many retries, and those that were saved up.
    assert channel.calls <= 100 + 20 + 10


async def mistakes_that_lint_finds(orders: OrderServiceAsyncStub) -> None:
    """Never called: when mypy stops seeing one of these, it reports an ignore that nothing needs."""
    await orders.GetOrder(order_pb2.ListOrdersRequest())  # type: ignore[arg-type]
    order = await orders.GetOrder(order_pb2.GetOrderRequest(id=ID))
    order.totals  # type: ignore[attr-defined]  # noqa: B018
    async for step in orders.GetOrderHistory(order_pb2.GetOrderHistoryRequest(order_id=ID)):
        step.versions  # type: ignore[attr-defined]  # noqa: B018
