"""OrderService: protobuf to use cases and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

from chassis import context
from chassis.cursors import CursorSigner
from contracts.common.v1 import paging_pb2
from contracts.order.v1 import order_pb2
from contracts.order.v1.order_pb2_grpc import OrderServiceServicer

from order.handlers import messages
from order.repository.orders import OrderFilter
from order.service import records
from order.service.orders import Actor, OrderUseCases, Reader
from order.service.payments import PaymentUseCases
from order.service.refunds import RefundUseCases


class OrderHandlers(OrderServiceServicer):
    """The servicer."""

    def __init__(
        self,
        orders: OrderUseCases,
        payments: PaymentUseCases,
        refunds: RefundUseCases,
        cursors: CursorSigner,
    ) -> None:
        self._orders = orders
        self._payments = payments
        self._refunds = refunds
        self._cursors = cursors

    async def CreateOrder(self, request: order_pb2.CreateOrderRequest, _context: object) -> order_pb2.OrderResult:
        """See the contract."""
        lines = [(UUID(item.product_id), item.quantity) for item in request.items]
        order, replayed = await self._orders.create(
            messages.idempotent_request("create", request, request.idempotency_key), lines
        )
        return order_pb2.OrderResult(order=records.order(order), replayed=replayed)

    async def GetOrder(self, request: order_pb2.GetOrderRequest, _context: object) -> order_pb2.Order:
        """See the contract."""
        caller = context.caller()
        return await self._orders.shown(request.id, Reader(caller.user_id, caller.may("orders:read_any")))

    async def ListOrders(self, request: order_pb2.ListOrdersRequest, _context: object) -> order_pb2.ListOrdersResponse:
        """See the contract."""
        user_id = UUID(context.caller().user_id)
        return await self._page(messages.order_filter(request.filter, user_id), request.page)

    async def ListAllOrders(
        self, request: order_pb2.ListAllOrdersRequest, _context: object
    ) -> order_pb2.ListOrdersResponse:
        """See the contract."""
        user_id = UUID(request.user_id) if request.HasField("user_id") else None
        return await self._page(messages.order_filter(request.filter, user_id), request.page)

    async def SummarizeOrders(
        self, request: order_pb2.SummarizeOrdersRequest, _context: object
    ) -> order_pb2.OrderSummary:
        """See the contract."""
        newest, spent = await self._orders.summary(UUID(context.caller().user_id), request.newest)
        return order_pb2.OrderSummary(
            newest=[records.order(order) for order in newest], spent=[messages.spent(amount) for amount in spent]
        )

    async def PayOrder(self, request: order_pb2.PayOrderRequest, _context: object) -> order_pb2.OrderResult:
        """See the contract."""
        order, replayed = await self._payments.pay(
            messages.idempotent_request("pay", request, request.idempotency_key),
            UUID(request.order_id),
            request.payment_token,
            messages.version(request),
        )
        return order_pb2.OrderResult(order=records.order(order), replayed=replayed)

    async def CancelOrder(self, request: order_pb2.CancelOrderRequest, _context: object) -> order_pb2.Order:
        """See the contract."""
        expected = messages.version(request)
        return records.order(await self._orders.cancel(UUID(request.order_id), _actor(), request.reason, expected))

    async def ShipOrder(self, request: order_pb2.ShipOrderRequest, _context: object) -> order_pb2.Order:
        """See the contract."""
        order = await self._orders.ship(
            UUID(request.order_id), _actor(), request.carrier, request.tracking_number, messages.version(request)
        )
        return records.order(order)

    async def DeliverOrder(self, request: order_pb2.DeliverOrderRequest, _context: object) -> order_pb2.Order:
        """See the contract."""
        expected = messages.version(request)
        return records.order(await self._orders.deliver(UUID(request.order_id), _actor(), expected))

    async def RefundOrder(self, request: order_pb2.RefundOrderRequest, _context: object) -> order_pb2.OrderResult:
        """See the contract."""
        order, replayed = await self._refunds.refund(
            messages.idempotent_request("refund", request, request.idempotency_key),
            UUID(request.order_id),
            request.reason,
            request.restock if request.HasField("restock") else None,
            messages.version(request),
        )
        return order_pb2.OrderResult(order=records.order(order), replayed=replayed)

    async def GetRefund(self, request: order_pb2.GetRefundRequest, _context: object) -> order_pb2.Refund:
        """See the contract."""
        return messages.refund(await self._refunds.get(UUID(request.order_id)))

    async def GetOrderHistory(
        self, request: order_pb2.GetOrderHistoryRequest, _context: object
    ) -> AsyncIterator[order_pb2.OrderTransition]:
        """See the contract."""
        for transition in await self._orders.history(UUID(request.order_id)):
            yield messages.transition(transition)

    async def _page(self, where: OrderFilter, page: paging_pb2.PageRequest) -> order_pb2.ListOrdersResponse:
        scope = f"orders|{where}"
        key = self._cursors.decode(scope, page.cursor, length=2)
        before = (datetime.fromisoformat(key[0]), UUID(key[1])) if key else None
        shown, more = await self._orders.page(where, before, page.limit)
        return order_pb2.ListOrdersResponse(
            orders=[records.order(order) for order in shown],
            next_cursor=self._cursors.encode(scope, [shown[-1].created_at.isoformat(), str(shown[-1].id)])
            if more
            else "",
        )


def _actor() -> Actor:
    caller = context.caller()
    return Actor(UUID(caller.user_id), caller.may("orders:cancel_any"))
