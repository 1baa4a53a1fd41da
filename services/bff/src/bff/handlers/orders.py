"""Orders, for customers and for support."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chassis.http.answers import is_current, json_answer, matching, not_modified
from contracts.bff.v1 import models, operations
from contracts.common.v1 import paging_pb2
from contracts.order.v1 import order_pb2
from msgspec import UNSET
from starlette.responses import Response

from bff import shapes

if TYPE_CHECKING:
    from contracts.order.v1.order_pb2_grpc import OrderServiceAsyncStub


class OrderHandlers:
    """Everything about orders."""

    def __init__(self, orders: OrderServiceAsyncStub) -> None:
        self._orders = orders

    async def create_order(self, body: models.CreateOrderRequest, headers: operations.CreateOrderHeaders) -> Response:
        """POST /v1/orders."""
        request = order_pb2.CreateOrderRequest(
            idempotency_key=headers.idempotency_key,
            items=[
                order_pb2.OrderLine(product_id=line.product_id.lower(), quantity=line.quantity) for line in body.items
            ],
        )
        result = await self._orders.CreateOrder(request)
        return _keyed(result, status=201, headers={"location": f"/v1/orders/{result.order.id}"})

    async def get_order(self, order_id: str, headers: operations.GetOrderHeaders) -> Response:
        """GET /v1/orders/{order_id}."""
        order = await self._orders.GetOrder(order_pb2.GetOrderRequest(id=order_id))
        if is_current(headers.if_none_match, order.version):
            return not_modified(order.version)
        return _order(order)

    async def list_orders(self, query: operations.ListOrdersQuery) -> Response:
        """GET /v1/orders."""
        request = order_pb2.ListOrdersRequest(
            page=paging_pb2.PageRequest(limit=query.limit, cursor=query.cursor or ""), filter=_filter(query)
        )
        return _page(await self._orders.ListOrders(request))

    async def list_all_orders(self, query: operations.ListAllOrdersQuery) -> Response:
        """GET /v1/admin/orders."""
        request = order_pb2.ListAllOrdersRequest(
            page=paging_pb2.PageRequest(limit=query.limit, cursor=query.cursor or ""),
            filter=_filter(query),
            user_id=None if query.user_id is UNSET else query.user_id.lower(),
        )
        return _page(await self._orders.ListAllOrders(request))

    async def pay_order(
        self, order_id: str, body: models.PaymentRequest, headers: operations.PayOrderHeaders
    ) -> Response:
        """POST /v1/orders/{order_id}/payment."""
        request = order_pb2.PayOrderRequest(
            order_id=order_id,
            idempotency_key=headers.idempotency_key,
            payment_token=body.payment_token,
        )
        return _keyed(await matching(headers.if_match, request, lambda: self._orders.PayOrder(request)))

    async def cancel_order(
        self, order_id: str, body: models.CancellationRequest, headers: operations.CancelOrderHeaders
    ) -> Response:
        """POST /v1/orders/{order_id}/cancellation."""
        request = order_pb2.CancelOrderRequest(order_id=order_id, reason=body.reason)
        return _order(await matching(headers.if_match, request, lambda: self._orders.CancelOrder(request)))

    async def ship_order(
        self, order_id: str, body: models.ShipmentRequest, headers: operations.ShipOrderHeaders
    ) -> Response:
        """POST /v1/admin/orders/{order_id}/shipment."""
        request = order_pb2.ShipOrderRequest(
            order_id=order_id,
            carrier=body.carrier,
            tracking_number=body.tracking_number,
        )
        return _order(await matching(headers.if_match, request, lambda: self._orders.ShipOrder(request)))

    async def deliver_order(self, order_id: str, headers: operations.DeliverOrderHeaders) -> Response:
        """POST /v1/admin/orders/{order_id}/delivery."""
        request = order_pb2.DeliverOrderRequest(order_id=order_id)
        return _order(await matching(headers.if_match, request, lambda: self._orders.DeliverOrder(request)))

    async def refund_order(
        self, order_id: str, body: models.RefundRequest, headers: operations.RefundOrderHeaders
    ) -> Response:
        """POST /v1/admin/orders/{order_id}/refund."""
        request = order_pb2.RefundOrderRequest(
            order_id=order_id,
            reason=body.reason,
            idempotency_key=headers.idempotency_key,
            restock=None if body.restock is UNSET else body.restock,
        )
        result = await matching(headers.if_match, request, lambda: self._orders.RefundOrder(request))
        return _keyed(result, status=202 if result.order.status == order_pb2.ORDER_STATUS_REFUNDING else 200)

    async def get_refund(self, order_id: str) -> Response:
        """GET /v1/admin/orders/{order_id}/refund."""
        request = order_pb2.GetRefundRequest(order_id=order_id)
        return json_answer(shapes.refund(await self._orders.GetRefund(request)))

    async def get_order_history(self, order_id: str) -> Response:
        """GET /v1/admin/orders/{order_id}/history."""
        transitions = self._orders.GetOrderHistory(order_pb2.GetOrderHistoryRequest(order_id=order_id))
        return json_answer(models.OrderHistory(items=[shapes.transition(step) async for step in transitions]))


def _order(order: order_pb2.Order) -> Response:
    return json_answer(shapes.order(order), version=order.version)


def _keyed(result: order_pb2.OrderResult, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    response = json_answer(shapes.order(result.order), status=status, version=result.order.version, headers=headers)
    if result.replayed:
        response.headers["idempotency-replayed"] = "true"
    return response


def _page(page: order_pb2.ListOrdersResponse) -> Response:
    items = [shapes.order(order) for order in page.orders]
    return json_answer(models.OrderPage(items=items, next_cursor=page.next_cursor or None))


def _filter(query: operations.ListOrdersQuery | operations.ListAllOrdersQuery) -> order_pb2.OrderFilter:
    return order_pb2.OrderFilter(
        status=order_pb2.ORDER_STATUS_UNSPECIFIED
        if query.status is UNSET
        else shapes.ORDER_STATUS_NUMBER[query.status],
        created_from=shapes.timestamp("created_from", query.created_from),
        created_before=shapes.timestamp("created_before", query.created_before),
    )
