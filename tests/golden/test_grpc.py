"""What every RPC answers, as it is on the wire: the message, or the status with its details; and the headers that matter.

`grpc/PACKAGE.SERVICE.METHOD.txt` has the calls of one RPC, each with its request, made one after the other of the running
platform. A field that is not set is not shown.
"""

from __future__ import annotations

import asyncio
import base64
import urllib.parse
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import goldens
import grpc
import inside
import pytest
from chassis.grpc import framing
from contracts.common.v1 import audit_pb2, money_pb2, paging_pb2
from contracts.notification.v1 import notification_pb2
from contracts.order.v1 import catalog_pb2, order_pb2
from contracts.user.v1 import contact_pb2, session_pb2, user_pb2
from google.protobuf import any_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from mesh import peers
from mesh.topology import SERVICES

from conftest import Platform

NOWHERE = "01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b21"
POOL = descriptor_pool.Default()
# Not the limiter: its contracts are those of Envoy and OpenTelemetry.
OF_CONTRACTS = [row for row in SERVICES if row.serves_grpc and row.name != "limiter"]
RPCS = {
    f"{service}.{method.name}"
    for row in OF_CONTRACTS
    for service in peers.callers(row)
    for method in POOL.FindServiceByName(service).methods
}
# How long it took, and when, is of one call.
_UNSTABLE = {":status", "date", "x-envoy-upstream-service-time", "x-request-id", "server-timing"}
_STATUS = {code.value[0]: code.name for code in grpc.StatusCode}
_DETAILS = {message.DESCRIPTOR.full_name: message for message in (
    error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo,
)}  # fmt: skip
PASSWORD = "a long golden password"
BROWSER = session_pb2.Client(user_agent="Golden/1.0", address="192.0.2.7")


@dataclass
class Calls:
    """Calls of the running platform, as the process calls that may; those that have a title are written down."""

    platform: Platform
    parts: list[str] = field(default_factory=list)
    names: goldens.Names = field(default_factory=lambda: goldens.Names({NOWHERE: "nowhere"}))

    async def __call__(self, rpc: str, request: Message, token: str = "", title: str = "", who: str = "") -> Any:
        """The first message of the answer, or an empty one; an error without a title raises AssertionError."""
        method = POOL.FindMethodByName(rpc)
        service = rpc.partition(".")[0]
        row = next(row for row in OF_CONTRACTS if row.name == service)
        answer = await inside.call(
            self.platform.layout.port(service),
            f"/{method.containing_service.full_name}/{method.name}",
            inside.identity(
                self.platform.layout.certificates / (who or peers.callers(row)[method.containing_service.full_name][0])
            ),
            headers={"authorization": f"Bearer {token}"} if token else {},
            body=framing.encode_frame(request.SerializeToString()),
        )
        answers = [
            message_factory.GetMessageClass(method.output_type).FromString(frame) for frame in frames(answer.body)
        ]
        if title:
            self.parts.append(self.written(title, request, answer, answers))
        else:
            assert answer.grpc_status == "0", (rpc, answer)
        return answers[0] if answers else message_factory.GetMessageClass(method.output_type)()

    def written(self, title: str, request: Message, answer: inside.Answer, answers: list[Message]) -> str:
        lines = [f"## {title}", "", f"request {goldens.shown(self.names.message(request))}", ""]
        lines.append(f"HTTP {answer.status}, {_STATUS[int(answer.grpc_status or 2)]}")
        lines += [
            f"{name}: {self.names.text(urllib.parse.unquote(value))}"
            for name, value in sorted(answer.headers.items())
            if name not in _UNSTABLE and name not in ("grpc-status", "grpc-status-details-bin")
        ]
        lines += [goldens.shown(self.names.message(message)) for message in answers]
        if packed := answer.headers.get("grpc-status-details-bin"):
            status = Status.FromString(base64.b64decode(packed + "=" * (-len(packed) % 4)))
            assert (str(status.code), status.message) == (
                answer.grpc_status,
                urllib.parse.unquote(answer.headers["grpc-message"]),
            )
            lines += [self.detail(detail) for detail in status.details]
        return "\n".join(lines)

    def detail(self, packed: any_pb2.Any) -> str:
        detail = _DETAILS[packed.TypeName()]()
        packed.Unpack(detail)
        return f"{detail.DESCRIPTOR.full_name} {goldens.shown(self.names.message(detail))}"

    async def log_in(self, email: str, password: str = PASSWORD) -> str:
        """An access token."""
        granted = await self(
            "user.v1.SessionService.LogIn",
            session_pb2.LogInRequest(email=email, password=password, client=BROWSER),
        )
        return str(granted.access_token)

    async def role(self, role: str) -> str:
        """An access token of a demo account."""
        account = self.platform.account(role)
        return await self.log_in(account.email, account.password)

    async def newcomer(self) -> tuple[user_pb2.User, str]:
        """A customer whom nobody else knows, and an access token of theirs."""
        user = await self("user.v1.UserService.Register", registration())
        return user, await self.log_in(user.email)

    async def product(self, stock: int = 10) -> catalog_pb2.Product:
        """A product that nobody else orders."""
        made = await self("order.v1.CatalogService.CreateProduct", new_product(stock), await self.role("admin"))
        assert isinstance(made, catalog_pb2.Product)
        return made

    async def order(self, token: str) -> order_pb2.Order:
        """A placed order of two pieces."""
        request = new_order((await self.product()).id)
        order = (await self("order.v1.OrderService.CreateOrder", request, token)).order
        assert isinstance(order, order_pb2.Order)
        return order

    async def paid(self, token: str) -> order_pb2.Order:
        """A paid order of two pieces."""
        placed = await self.order(token)
        paid = (await self("order.v1.OrderService.PayOrder", payment(placed.id), token)).order
        assert isinstance(paid, order_pb2.Order)
        return paid


def frames(body: bytes) -> list[bytes]:
    """The messages of a body; none of them is compressed, for nobody asked for it."""
    found = []
    while body:
        compressed, length = body[0], int.from_bytes(body[1 : framing.PREFIX_BYTES], "big")
        assert compressed == 0
        found.append(body[framing.PREFIX_BYTES : framing.PREFIX_BYTES + length])
        body = body[framing.PREFIX_BYTES + length :]
    return found


def key() -> str:
    return str(uuid.uuid4())


def registration() -> user_pb2.RegisterRequest:
    return user_pb2.RegisterRequest(
        email=f"{uuid.uuid4()}@example.com", password=PASSWORD, display_name="Golden Customer"
    )


def new_product(stock: int = 10) -> catalog_pb2.CreateProductRequest:
    return catalog_pb2.CreateProductRequest(
        sku=f"G-{uuid.uuid4().hex[:20].upper()}",
        name=f"Golden lamp {uuid.uuid4()}",
        price=money_pb2.Money(amount_minor=1250, currency="EUR"),
        initial_stock=stock,
    )


def new_order(product: str, quantity: int = 2) -> order_pb2.CreateOrderRequest:
    return order_pb2.CreateOrderRequest(
        idempotency_key=key(), items=[order_pb2.OrderLine(product_id=product, quantity=quantity)]
    )


def payment(order: str, means: str = "tok_approved", **more: int) -> order_pb2.PayOrderRequest:
    return order_pb2.PayOrderRequest(order_id=order, idempotency_key=key(), payment_token=means, **more)


def page(limit: int = 1, cursor: str = "") -> paging_pb2.PageRequest:
    return paging_pb2.PageRequest(limit=limit, cursor=cursor)


Scenario = Callable[[Calls, str], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


def of(rpc: str) -> Callable[[Scenario], Scenario]:
    def add(scenario: Scenario) -> Scenario:
        SCENARIOS[rpc] = scenario
        return scenario

    return add


@of("order.v1.OrderService.CreateOrder")
async def create_order(calls: Calls, rpc: str) -> None:
    _, token = await calls.newcomer()
    product = await calls.product(stock=3)
    request = new_order(product.id)
    await calls(rpc, request, token, "an order")
    await calls(rpc, request, token, "the same key again")
    await calls(rpc, new_order(product.id), token, "more than there is")
    await calls(rpc, new_order(NOWHERE), token, "of a product that does not exist")
    await calls(rpc, new_order(product.id, 0), token, "of no pieces")
    await calls(rpc, request, "", "by nobody")


@of("order.v1.OrderService.GetOrder")
async def get_order(calls: Calls, rpc: str) -> None:
    (_, token), (_, other) = await calls.newcomer(), await calls.newcomer()
    request = order_pb2.GetOrderRequest(id=(await calls.order(token)).id)
    await calls(rpc, request, token, "their own")
    await calls(rpc, request, other, "another's")
    await calls(rpc, order_pb2.GetOrderRequest(id="1"), token, "no id")


@of("order.v1.OrderService.ListOrders")
async def list_orders(calls: Calls, rpc: str) -> None:
    _, token = await calls.newcomer()
    await calls(rpc, order_pb2.ListOrdersRequest(page=page()), token, "none")
    for _ in range(2):
        await calls.order(token)
    first = await calls(rpc, order_pb2.ListOrdersRequest(page=page()), token, "the newest")
    await calls(rpc, order_pb2.ListOrdersRequest(page=page(cursor=first.next_cursor)), token, "the last page")
    await calls(rpc, order_pb2.ListOrdersRequest(page=page(cursor="x")), token, "a cursor that is none")
    await calls(rpc, order_pb2.ListOrdersRequest(), token, "without a page")


@of("order.v1.OrderService.ListAllOrders")
async def list_all_orders(calls: Calls, rpc: str) -> None:
    user, token = await calls.newcomer()
    support, request = await calls.role("support"), order_pb2.ListAllOrdersRequest(page=page(), user_id=user.id)
    await calls(rpc, request, support, "of a user who has none")
    await calls.order(token)
    await calls(rpc, request, support, "of a user")
    await calls(rpc, request, token, "by a customer")


@of("order.v1.OrderService.SummarizeOrders")
async def summarize_orders(calls: Calls, rpc: str) -> None:
    _, token = await calls.newcomer()
    await calls(rpc, order_pb2.SummarizeOrdersRequest(newest=1), token, "none")
    await calls.paid(token)
    await calls(rpc, order_pb2.SummarizeOrdersRequest(newest=1), token, "one that is paid")
    await calls(rpc, order_pb2.SummarizeOrdersRequest(newest=21), token, "too many")


@of("order.v1.OrderService.PayOrder")
async def pay_order(calls: Calls, rpc: str) -> None:
    _, token = await calls.newcomer()
    order = await calls.order(token)
    await calls(rpc, payment(order.id, "tok_declined"), token, "declined")
    await calls(rpc, payment(order.id, "tok_error"), token, "the provider fails")
    await calls(rpc, payment(order.id, expected_version=7), token, "another version than it has")
    request = payment(order.id)
    await calls(rpc, request, token, "paid")
    await calls(rpc, request, token, "the same key again")
    await calls(rpc, payment(order.id), token, "once more")


@of("order.v1.OrderService.CancelOrder")
async def cancel_order(calls: Calls, rpc: str) -> None:
    _, token = await calls.newcomer()
    request = order_pb2.CancelOrderRequest(order_id=(await calls.order(token)).id, reason="changed my mind")
    await calls(rpc, request, token, "cancelled")
    await calls(rpc, request, token, "again")
    await calls(rpc, order_pb2.CancelOrderRequest(order_id=NOWHERE, reason="x"), token, "nobody's")


@of("order.v1.OrderService.ShipOrder")
async def ship_order(calls: Calls, rpc: str) -> None:
    (_, token), support = await calls.newcomer(), await calls.role("support")
    order = await calls.paid(token)
    request = order_pb2.ShipOrderRequest(order_id=order.id, carrier="DHL", tracking_number="JJD00")
    await calls(rpc, request, token, "by a customer")
    await calls(rpc, request, support, "shipped")
    await calls(rpc, request, support, "again")


@of("order.v1.OrderService.DeliverOrder")
async def deliver_order(calls: Calls, rpc: str) -> None:
    (_, token), support = await calls.newcomer(), await calls.role("support")
    order = await calls.paid(token)
    request = order_pb2.DeliverOrderRequest(order_id=order.id)
    await calls(rpc, request, support, "before it is shipped")
    shipment = order_pb2.ShipOrderRequest(order_id=order.id, carrier="DHL", tracking_number="JJD00")
    await calls("order.v1.OrderService.ShipOrder", shipment, support)
    await calls(rpc, request, support, "delivered")


def refund(order: str) -> order_pb2.RefundOrderRequest:
    return order_pb2.RefundOrderRequest(order_id=order, reason="broken", idempotency_key=key())


@of("order.v1.OrderService.RefundOrder")
async def refund_order(calls: Calls, rpc: str) -> None:
    (_, token), support = await calls.newcomer(), await calls.role("support")
    request = refund((await calls.paid(token)).id)
    await calls(rpc, request, support, "refunded")
    await calls(rpc, request, support, "the same key again")
    await calls(rpc, refund((await calls.order(token)).id), support, "what was not paid")
    await calls(rpc, refund(NOWHERE), support, "nobody's")


@of("order.v1.OrderService.GetRefund")
async def get_refund(calls: Calls, rpc: str) -> None:
    (_, token), support = await calls.newcomer(), await calls.role("support")
    order = await calls.paid(token)
    await calls(rpc, order_pb2.GetRefundRequest(order_id=order.id), support, "there is none")
    await calls("order.v1.OrderService.RefundOrder", refund(order.id), support)
    await calls(rpc, order_pb2.GetRefundRequest(order_id=order.id), support, "made")


@of("order.v1.OrderService.GetOrderHistory")
async def get_order_history(calls: Calls, rpc: str) -> None:
    (_, token), support = await calls.newcomer(), await calls.role("support")
    order = await calls.paid(token)
    await calls(rpc, order_pb2.GetOrderHistoryRequest(order_id=order.id), support, "of an order that is paid")
    await calls(rpc, order_pb2.GetOrderHistoryRequest(order_id=NOWHERE), support, "nobody's")


@of("order.v1.CatalogService.ListProducts")
async def list_products(calls: Calls, rpc: str) -> None:
    product = await calls.product()
    await calls(rpc, catalog_pb2.ListProductsRequest(page=page(), search=product.name), "", "by its name")
    await calls(rpc, catalog_pb2.ListProductsRequest(page=page(), search=NOWHERE), "", "none")
    await calls(rpc, catalog_pb2.ListProductsRequest(page=page(101)), "", "too many")


@of("order.v1.CatalogService.GetProduct")
async def get_product(calls: Calls, rpc: str) -> None:
    product = await calls.product()
    await calls(rpc, catalog_pb2.GetProductRequest(id=product.id), "", "a product")
    await calls(rpc, catalog_pb2.GetProductRequest(id=NOWHERE), "", "none")


@of("order.v1.CatalogService.CreateProduct")
async def create_product(calls: Calls, rpc: str) -> None:
    admin, request = await calls.role("admin"), new_product()
    await calls(rpc, request, admin, "a product")
    await calls(rpc, request, admin, "the same SKU")
    request.price.currency = "XXQ"
    await calls(rpc, request, admin, "in no currency")
    await calls(rpc, catalog_pb2.CreateProductRequest(), admin, "of nothing")


@of("order.v1.CatalogService.UpdateProduct")
async def update_product(calls: Calls, rpc: str) -> None:
    admin, product = await calls.role("admin"), await calls.product()
    request = catalog_pb2.UpdateProductRequest(id=product.id, name="Golden lantern", expected_version=1)
    await calls(rpc, request, admin, "another name")
    await calls(rpc, request, admin, "of a version that is gone")


@of("order.v1.CatalogService.AdjustStock")
async def adjust_stock(calls: Calls, rpc: str) -> None:
    admin, product = await calls.role("admin"), await calls.product()

    def adjusting(delta: int) -> catalog_pb2.AdjustStockRequest:
        return catalog_pb2.AdjustStockRequest(id=product.id, delta=delta, reason="counted", idempotency_key=key())

    request = adjusting(5)
    await calls(rpc, request, admin, "more")
    await calls(rpc, request, admin, "the same key again")
    await calls(rpc, adjusting(-16), admin, "fewer than none")


async def audit(calls: Calls, rpc: str, subject: str) -> None:
    admin = await calls.role("admin")

    def about(subject: str) -> audit_pb2.ListAuditRecordsRequest:
        return audit_pb2.ListAuditRecordsRequest(limit=10, filter=audit_pb2.AuditFilter(subject=subject))

    await calls(rpc, about(subject), admin, "what was done")
    await calls(rpc, about(f"nothing/{NOWHERE}"), admin, "nothing")
    await calls(rpc, about(subject), (await calls.newcomer())[1], "by a customer")


@of("order.v1.AuditService.ListAuditRecords")
async def list_audit_records_of_orders(calls: Calls, rpc: str) -> None:
    product = await calls.product()
    price = money_pb2.Money(amount_minor=1300, currency="EUR")
    change = catalog_pb2.UpdateProductRequest(id=product.id, price=price)
    await calls("order.v1.CatalogService.UpdateProduct", change, await calls.role("admin"))
    await audit(calls, rpc, f"product/{product.id}")


@of("user.v1.AuditService.ListAuditRecords")
async def list_audit_records_of_users(calls: Calls, rpc: str) -> None:
    user, _ = await calls.newcomer()
    change = user_pb2.UpdateUserRequest(id=user.id, roles=user_pb2.RoleList(roles=["customer", "support"]))
    await calls("user.v1.UserService.UpdateUser", change, await calls.role("admin"))
    await audit(calls, rpc, f"user/{user.id}")


@of("user.v1.UserService.Register")
async def register(calls: Calls, rpc: str) -> None:
    request = registration()
    await calls(rpc, request, "", "a customer")
    await calls(rpc, request, "", "the same address")
    await calls(rpc, user_pb2.RegisterRequest(email="none", password="short"), "", "of nothing valid")


@of("user.v1.UserService.ResolveUser")
async def resolve_user(calls: Calls, rpc: str) -> None:
    _, token = await calls.newcomer()
    await calls(rpc, user_pb2.ResolveUserRequest(), token, "themselves")
    await calls(rpc, user_pb2.ResolveUserRequest(), "", "by nobody")
    await calls(rpc, user_pb2.ResolveUserRequest(), "not.a.token", "with a token that is none")


@of("user.v1.UserService.UpdateProfile")
async def update_profile(calls: Calls, rpc: str) -> None:
    _, token = await calls.newcomer()
    request = user_pb2.UpdateProfileRequest(display_name="Ada", expected_version=1)
    await calls(rpc, request, token, "another name")
    await calls(rpc, request, token, "of a version that is gone")


@of("user.v1.UserService.ChangePassword")
async def change_password(calls: Calls, rpc: str) -> None:
    _, token = await calls.newcomer()
    request = user_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password="another long password")
    await calls(rpc, request, token, "changed")
    await calls(rpc, request, token, "a wrong one")


@of("user.v1.UserService.ListUsers")
async def list_users(calls: Calls, rpc: str) -> None:
    (user, token), support = await calls.newcomer(), await calls.role("support")
    await calls(rpc, user_pb2.ListUsersRequest(page=page(), search=user.email), support, "by their address")
    await calls(rpc, user_pb2.ListUsersRequest(page=page(), search=NOWHERE), support, "none")
    await calls(rpc, user_pb2.ListUsersRequest(page=page()), token, "by a customer")


@of("user.v1.UserService.UpdateUser")
async def update_user(calls: Calls, rpc: str) -> None:
    (user, _), admin = await calls.newcomer(), await calls.role("admin")
    disabled = user_pb2.USER_STATUS_DISABLED
    await calls(rpc, user_pb2.UpdateUserRequest(id=user.id, status=disabled), admin, "disabled")
    await calls(rpc, user_pb2.UpdateUserRequest(id=NOWHERE, status=disabled), admin, "nobody")
    emperor = user_pb2.RoleList(roles=["emperor"])
    await calls(rpc, user_pb2.UpdateUserRequest(id=user.id, roles=emperor), admin, "a role that there is not")


def login(email: str, password: str = PASSWORD) -> session_pb2.LogInRequest:
    return session_pb2.LogInRequest(email=email, password=password, client=BROWSER)


@of("user.v1.SessionService.LogIn")
async def log_in(calls: Calls, rpc: str) -> None:
    user, _ = await calls.newcomer()
    await calls(rpc, login(user.email), "", "a session")
    await calls(rpc, login(user.email, "wrong"), "", "a wrong password")


@of("user.v1.SessionService.Refresh")
async def refresh(calls: Calls, rpc: str) -> None:
    user, _ = await calls.newcomer()
    granted = await calls("user.v1.SessionService.LogIn", login(user.email))
    request = session_pb2.RefreshRequest(refresh_token=granted.refresh_token, client=BROWSER)
    await calls(rpc, request, "", "exchanged")
    await calls(rpc, session_pb2.RefreshRequest(refresh_token="none", client=BROWSER), "", "nobody's token")


@of("user.v1.SessionService.EndSession")
async def end_session(calls: Calls, rpc: str) -> None:
    user, _ = await calls.newcomer()
    granted = await calls("user.v1.SessionService.LogIn", login(user.email))
    await calls(rpc, session_pb2.EndSessionRequest(refresh_token=granted.refresh_token), "", "ended")
    await calls(rpc, session_pb2.EndSessionRequest(refresh_token="none"), "", "nobody's token")
    await calls(rpc, session_pb2.EndSessionRequest(refresh_token="x" * 129), "", "a token that is too long")


@of("user.v1.SessionService.LogOut")
async def log_out(calls: Calls, rpc: str) -> None:
    _, token = await calls.newcomer()
    await calls(rpc, session_pb2.LogOutRequest(), token, "out")
    await calls(rpc, session_pb2.LogOutRequest(), token, "again")


@of("user.v1.SessionService.NoteUse")
async def note_use(calls: Calls, rpc: str) -> None:
    _, token = await calls.newcomer()
    await calls(rpc, session_pb2.NoteUseRequest(), token, "noted")
    await calls(rpc, session_pb2.NoteUseRequest(), "", "by nobody")


@of("user.v1.SessionService.ListSessions")
async def list_sessions(calls: Calls, rpc: str) -> None:
    user, token = await calls.newcomer()
    await calls.log_in(user.email)
    await calls(rpc, session_pb2.ListSessionsRequest(), token, "two")
    await calls(rpc, session_pb2.ListSessionsRequest(), "", "by nobody")


@of("user.v1.SessionService.RevokeSession")
async def revoke_session(calls: Calls, rpc: str) -> None:
    _, token = await calls.newcomer()
    (own,) = (await calls("user.v1.SessionService.ListSessions", session_pb2.ListSessionsRequest(), token)).sessions
    await calls(rpc, session_pb2.RevokeSessionRequest(id=own.id), token, "ended")
    await calls(rpc, session_pb2.RevokeSessionRequest(id=NOWHERE), token, "nobody's")


@of("user.v1.SessionService.RevokeUserSessions")
async def revoke_user_sessions(calls: Calls, rpc: str) -> None:
    (user, _), admin = await calls.newcomer(), await calls.role("admin")
    await calls(rpc, session_pb2.RevokeUserSessionsRequest(user_id=user.id), admin, "ended")
    await calls(rpc, session_pb2.RevokeUserSessionsRequest(user_id=NOWHERE), admin, "nobody's")


@of("user.v1.ContactService.GetContact")
async def get_contact(calls: Calls, rpc: str) -> None:
    user, _ = await calls.newcomer()
    request = contact_pb2.GetContactRequest(user_id=user.id)
    await calls(rpc, request, "", "of a user")
    await calls(rpc, contact_pb2.GetContactRequest(user_id=NOWHERE), "", "of nobody")
    await calls(rpc, request, "", "by a process that may not", who="bff")


@of("notification.v1.NotificationService.GetPreferences")
async def get_preferences(calls: Calls, rpc: str) -> None:
    _, token = await calls.newcomer()
    await calls(rpc, notification_pb2.GetPreferencesRequest(), token, "never changed")
    await calls(rpc, notification_pb2.GetPreferencesRequest(), "", "by nobody")


@of("notification.v1.NotificationService.UpdatePreferences")
async def update_preferences(calls: Calls, rpc: str) -> None:
    _, token = await calls.newcomer()

    def off(kind: notification_pb2.MailKind.ValueType) -> notification_pb2.UpdatePreferencesRequest:
        return notification_pb2.UpdatePreferencesRequest(
            switches=[notification_pb2.Switch(kind=kind, enabled=False)], expected_version=1
        )

    await calls(rpc, off(notification_pb2.MAIL_KIND_ORDER_PLACED), token, "one that is always sent")
    await calls(rpc, off(notification_pb2.MAIL_KIND_ORDER_DELIVERED), token, "switched off")
    await calls(rpc, off(notification_pb2.MAIL_KIND_ORDER_DELIVERED), token, "of a version that is gone")
    await calls(rpc, notification_pb2.UpdatePreferencesRequest(), token, "nothing")


def test_every_rpc_has_a_golden_file() -> None:
    assert set(SCENARIOS) == RPCS
    assert goldens.WRITING or goldens.names_in("grpc") == RPCS


@pytest.mark.parametrize("rpc", sorted(SCENARIOS))
async def test_an_rpc_answers_as_it_did(platform: Platform, rpc: str) -> None:
    """`make golden` shows what has changed and writes it."""
    calls = Calls(platform)
    async with asyncio.timeout(60):
        await SCENARIOS[rpc](calls, rpc)
    goldens.check(f"grpc/{rpc}.txt", "\n\n".join(calls.parts))
