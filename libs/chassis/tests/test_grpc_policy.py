from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
import jwt
import pytest
from chassis import context
from chassis.context import METADATA_ROLES, RequestContext
from chassis.errors import ServiceError
from chassis.grpc.inprocess import in_process_channel
from chassis.grpc.peer import Peer
from chassis.grpc.policy import ContractMismatchError
from chassis.grpc.server import GrpcApplication
from chassis.grpc.serving import serve_contract
from chassis.identity import Caller
from chassis.ids import uuid7
from chassis.tokens import TokenVerifier
from contracts.order.v1 import order_pb2
from contracts.order.v1.order_pb2_grpc import OrderServiceServicer, OrderServiceStub, add_OrderServiceServicer_to_server
from contracts.permissions import PERMISSIONS
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.timestamp_pb2 import Timestamp

if TYPE_CHECKING:
    from contracts.order.v1.order_pb2_grpc import OrderServiceAsyncStub

ID = "01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b21"
SERVICE = order_pb2.DESCRIPTOR.services_by_name["OrderService"]


class Orders(OrderServiceServicer):
    """Every method answers something; what it saw is kept."""

    def __init__(self) -> None:
        self.seen: list[RequestContext | None] = []

    async def _answer(self, _request: Any, _context: Any) -> Any:
        self.seen.append(context.current())
        return order_pb2.Order(id=ID)

    GetOrder = CancelOrder = ShipOrder = DeliverOrder = RefundOrder = GetRefund = _answer
    ListOrders = ListAllOrders = SummarizeOrders = PayOrder = CreateOrder = _answer

    async def GetOrderHistory(self, request: Any, _context: Any) -> AsyncIterator[Any]:
        yield order_pb2.OrderTransition(version=1)
        raise RuntimeError("a secret")


class Keys:
    """One key that signs and verifies."""

    generation = 0
    private = ec.generate_private_key(ec.SECP256R1())

    def current(self) -> dict[str, ec.EllipticCurvePublicKey]:
        return {"k": self.private.public_key()}


TOKENS = TokenVerifier(Keys(), issuer="me", audience="api", lifetime=300)
USER, SESSION = str(uuid7()), str(uuid7())


def token_of(*roles: str, key: ec.EllipticCurvePrivateKey = Keys.private, **changes: Any) -> str:
    now = int(time.time())
    claims = {
        "iss": "me", "aud": "api", "sub": USER, "sid": SESSION, "roles": roles, "iat": now, "exp": now + 300, "jti": "1",
    }  # fmt: skip
    return jwt.encode({**claims, **changes}, key, algorithm="ES256", headers={"kid": "k"})


@pytest.fixture
def servicer() -> Orders:
    return Orders()


@pytest.fixture
def stub(servicer: Orders) -> OrderServiceAsyncStub:
    application = GrpcApplication()
    with serve_contract(application, SERVICE, tokens=TOKENS) as contract:
        add_OrderServiceServicer_to_server(servicer, contract)
    return Peer(in_process_channel(application)).stub(OrderServiceStub)


def as_caller(*roles: str, deadline: float | None = None) -> Any:
    return context.serving(RequestContext("request-1", deadline, Caller(USER, SESSION, roles), token_of(*roles)))


async def refused(call: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value


async def test_the_context_crosses_the_hop_and_is_cleared_after(stub: OrderServiceAsyncStub, servicer: Orders) -> None:
    deadline = asyncio.get_running_loop().time() + 5
    with as_caller("customer", deadline=deadline):
        await stub.GetOrder(order_pb2.GetOrderRequest(id=ID))
    (seen,) = servicer.seen
    assert seen is not None
    assert (seen.request_id, seen.caller) == ("request-1", Caller(USER, SESSION, ("customer",)))
    assert seen.deadline is not None
    assert abs(seen.deadline - deadline) < 0.1
    assert context.current() is None


async def test_nobody_is_unauthenticated_and_the_wrong_role_is_denied(
    stub: OrderServiceAsyncStub, servicer: Orders
) -> None:
    assert (await refused(stub.GetOrder(order_pb2.GetOrderRequest(id=ID)))).reason == "UNAUTHENTICATED"
    ship = order_pb2.ShipOrderRequest(order_id=ID, carrier="x", tracking_number="x")
    for roles in (("customer",), ("nonsense",), ()):
        with as_caller(*roles):
            error = await refused(stub.ShipOrder(ship))
            assert (error.reason, error.facts) == ("PERMISSION_DENIED", {"permission": "orders:fulfil"})
    assert servicer.seen == []


async def test_the_field_rules_are_enforced_with_a_pointer_each(stub: OrderServiceAsyncStub, servicer: Orders) -> None:
    lines = [order_pb2.OrderLine(product_id=ID, quantity=1), order_pb2.OrderLine(product_id="x", quantity=0)]
    request = order_pb2.CreateOrderRequest(idempotency_key="short", items=lines)
    with as_caller("customer"):
        error = await refused(stub.CreateOrder(request))
    assert error.reason == "INVALID_ARGUMENT"
    assert [v.where for v in error.violations] == ["/idempotency_key", "/items/1/product_id", "/items/1/quantity"]
    assert servicer.seen == []


async def test_what_a_field_can_carry_and_does_not_mean_is_refused(
    stub: OrderServiceAsyncStub, servicer: Orders
) -> None:
    """Proto3 takes any number for an enum, and any number of seconds for a timestamp."""
    outside = Timestamp(seconds=10**15), Timestamp(nanos=-1)
    wanted = order_pb2.OrderFilter(created_from=outside[0], created_before=outside[1])
    wanted.status = 99
    with as_caller("customer"):
        error = await refused(stub.ListOrders(order_pb2.ListOrdersRequest(filter=wanted)))
    assert error.reason == "INVALID_ARGUMENT"
    assert {(v.where, v.detail) for v in error.violations if v.where.startswith("/filter")} == {
        ("/filter/status", "is not known"),
        ("/filter/created_from", "is out of range"),
        ("/filter/created_before", "is out of range"),
    }
    assert servicer.seen == []


async def test_a_passed_deadline_is_not_even_sent(stub: OrderServiceAsyncStub, servicer: Orders) -> None:
    with as_caller("customer", deadline=asyncio.get_running_loop().time() - 1):
        error = await refused(stub.GetOrder(order_pb2.GetOrderRequest(id=ID)))
    assert error.reason == "DEADLINE_EXCEEDED"
    assert servicer.seen == []


async def test_an_unexpected_error_in_a_stream_comes_after_its_messages_and_says_nothing(
    stub: OrderServiceAsyncStub,
) -> None:
    seen = []
    with as_caller("support"), pytest.raises(ServiceError) as caught:
        async for message in stub.GetOrderHistory(order_pb2.GetOrderHistoryRequest(order_id=ID)):
            seen.append(message.version)  # noqa: PERF401 - `extend` would lose those before the error
    assert seen == [1]
    assert (caught.value.reason, caught.value.detail) == ("INTERNAL", "")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "no.token.at-all",
        token_of("customer", key=ec.generate_private_key(ec.SECP256R1())),
        token_of("customer", iss="another"),
        token_of("customer", aud="another"),
        token_of("customer", exp=int(time.time()) - 1),
        token_of("customer", nbf=int(time.time()) + 86400),
        token_of("customer", roles="admin"),
        token_of("customer", sub="admin"),
    ],
)
async def test_a_peer_cannot_invent_a_user(stub: OrderServiceAsyncStub, servicer: Orders, token: str) -> None:
    with context.serving(RequestContext("request-1", None, Caller(USER, SESSION, ("customer",)), token)):
        refusal = await refused(stub.GetOrder(order_pb2.GetOrderRequest(id=ID)))
    assert (refusal.reason, servicer.seen) == ("UNAUTHENTICATED", [])


async def test_a_peer_can_take_roles_away_and_not_add_any(stub: OrderServiceAsyncStub) -> None:
    ship = order_pb2.ShipOrderRequest(order_id=ID, carrier="x", tracking_number="x")
    for in_token, claimed in ((("customer",), ("customer", "support")), (("customer", "support"), ("customer",))):
        caller = Caller(USER, SESSION, claimed)
        with context.serving(RequestContext("request-1", None, caller, token_of(*in_token))):
            assert (await refused(stub.ShipOrder(ship))).reason == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("lists", "left"),
    [
        ([], ("customer", "support")),
        (["support,admin"], ("support",)),
        (["customer,support", "customer"], ("customer",)),
        (["customer", "customer,support"], ("customer",)),
        ([""], ()),
    ],
)
async def test_only_roles_that_are_in_every_list_of_a_peer_are_left(
    servicer: Orders, lists: list[str], left: tuple[str, ...]
) -> None:
    application = GrpcApplication()
    with serve_contract(application, SERVICE, tokens=TOKENS) as contract:
        add_OrderServiceServicer_to_server(servicer, contract)
    get = in_process_channel(application).unary_unary(
        "/order.v1.OrderService/GetOrder",
        order_pb2.GetOrderRequest.SerializeToString,
        order_pb2.Order.FromString,
    )
    metadata = [("authorization", f"Bearer {token_of('customer', 'support')}")]
    metadata += [(METADATA_ROLES, roles) for roles in lists]
    call = get(order_pb2.GetOrderRequest(id=ID), metadata=metadata)
    if left:
        await call
        assert [seen and seen.caller and seen.caller.roles for seen in servicer.seen] == [left]
    else:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await call
        assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_contract_that_needs_callers_needs_a_verifier() -> None:
    with (
        pytest.raises(ContractMismatchError, match="GetOrder needs a caller, and nothing verifies tokens"),
        serve_contract(GrpcApplication(), SERVICE) as contract,
    ):
        add_OrderServiceServicer_to_server(Orders(), contract)


def test_a_service_that_lacks_handlers_does_not_start_and_names_each() -> None:
    class Half(OrderServiceServicer):
        async def GetOrder(self, request: Any, context: Any) -> Any: ...

    Half.__abstractmethods__ = frozenset()
    with (
        pytest.raises(ContractMismatchError) as caught,
        serve_contract(GrpcApplication(), SERVICE, tokens=TOKENS) as contract,
    ):
        add_OrderServiceServicer_to_server(Half(), contract)
    assert "order.v1.OrderService.CancelOrder has no handler" in str(caught.value)
    assert "GetOrder " not in str(caught.value)


def test_a_service_of_the_contract_that_is_not_served_is_named() -> None:
    with (
        pytest.raises(ContractMismatchError, match=r"order\.v1\.OrderService is not served"),
        serve_contract(GrpcApplication(), SERVICE),
    ):
        pass


def test_a_permission_that_no_role_grants_is_a_mistake_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chassis.grpc.policy.PERMISSIONS", PERMISSIONS - {"orders:fulfil"})
    with (
        pytest.raises(ContractMismatchError) as caught,
        serve_contract(GrpcApplication(), SERVICE, tokens=TOKENS) as contract,
    ):
        add_OrderServiceServicer_to_server(Orders(), contract)
    assert "order.v1.OrderService.ShipOrder needs orders:fulfil, which no role grants" in str(caught.value)
    assert "GetOrder " not in str(caught.value)
