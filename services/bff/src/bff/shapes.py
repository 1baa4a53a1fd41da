"""Protobuf messages, and objects of the chassis, to the shapes of the public API."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal, cast

from chassis.errors import FieldViolation, ServiceError
from chassis.json_web_keys import JsonWebKeySet
from contracts.bff.v1 import models
from contracts.common.v1 import audit_pb2, money_pb2
from contracts.notification.v1 import notification_pb2
from contracts.order.v1 import catalog_pb2, order_pb2
from contracts.user.v1 import session_pb2, user_pb2
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from msgspec import UnsetType

# As the public contract writes them; that a model takes them, the type checker sees.
OrderStatus = Literal[
    "pending_payment", "paid", "shipped", "delivered", "cancelled", "expired", "refunding", "refunded"
]
RefundStatus = Literal["pending", "refused", "succeeded"]
UserStatus = Literal["active", "disabled"]
Role = Literal["customer", "support", "admin"]
AuditService = Literal["order", "user"]
AuditValue = str | int | bool | list[str]
MailKind = Literal["order_placed", "order_shipped", "order_refunded", "order_delivered", "welcome"]


def _lower(prefix: str, names: Iterable[tuple[str, int]]) -> dict[int, str]:
    """The public names: the enum's, without its prefix, in lower case."""
    return {number: name.removeprefix(prefix).lower() for name, number in names}


ORDER_STATUS = cast("dict[int, OrderStatus]", _lower("ORDER_STATUS_", order_pb2.OrderStatus.items()))
ORDER_STATUS_NUMBER = {name: cast("order_pb2.OrderStatus.ValueType", n) for n, name in ORDER_STATUS.items()}
REFUND_STATUS = cast("dict[int, RefundStatus]", _lower("REFUND_STATUS_", order_pb2.RefundStatus.items()))
USER_STATUS = cast("dict[int, UserStatus]", _lower("USER_STATUS_", user_pb2.UserStatus.items()))
MAIL_KIND = cast("dict[int, MailKind]", _lower("MAIL_KIND_", notification_pb2.MailKind.items()))
USER_STATUS_NUMBER = {name: cast("user_pb2.UserStatus.ValueType", n) for n, name in USER_STATUS.items()}


def moment(value: Timestamp) -> datetime:
    """A timestamp in UTC."""
    return datetime.fromtimestamp(value.seconds + value.nanos / 1e9, UTC)


def timestamp(parameter: str, value: datetime | UnsetType) -> Timestamp | None:
    """What a query's parameter says, if it says anything.

    Raises:
        ServiceError: INVALID_ARGUMENT; it is of the first or last day of the calendar, in a zone that puts it outside of it.
    """
    if isinstance(value, UnsetType):
        return None
    message = Timestamp()
    try:
        message.FromDatetime(value)
    except (ValueError, OverflowError):
        violation = FieldViolation(parameter, "is out of range", "parameter")
        raise ServiceError("INVALID_ARGUMENT", violations=(violation,)) from None
    return message


def money(value: money_pb2.Money) -> models.Money:
    """Money."""
    return models.Money(amount_minor=value.amount_minor, currency=value.currency)


def spent(value: order_pb2.Spent) -> models.Spent:
    """A sum over orders."""
    return models.Spent(amount_minor=value.amount_minor, currency=value.currency, capped=value.capped)


# The version is the answer's ETag.
# does not pass on: version, credential_version
def user(value: user_pb2.User) -> models.User:
    """A user."""
    return models.User(
        id=value.id,
        email=value.email,
        display_name=value.display_name,
        status=USER_STATUS[value.status],
        roles=cast("list[Role]", list(value.roles)),
        created_at=moment(value.created_at),
    )


def session(value: session_pb2.Session, own: str) -> models.Session:
    """A session; `own` is the id of the caller's."""
    return models.Session(
        id=value.id,
        created_at=moment(value.created_at),
        last_seen_at=moment(value.last_seen_at),
        user_agent=value.user_agent,
        address=value.address,
        current=value.id == own,
    )


# The version is the answer's ETag.
# does not pass on: version
def notifications(value: notification_pb2.Preferences) -> models.Notifications:
    """What somebody is written."""
    return models.Notifications(
        items=[
            models.Notification(kind=MAIL_KIND[one.kind], enabled=one.enabled, required=one.required)
            for one in value.preferences
        ]
    )


# The version is the answer's ETag.
# does not pass on: version, stock_version, created_at
def product(value: catalog_pb2.Product) -> models.Product:
    """A product."""
    return models.Product(
        id=value.id, sku=value.sku, name=value.name, price=money(value.price), available=value.available
    )


def order_item(value: order_pb2.OrderItem) -> models.OrderItem:
    """A line of an order."""
    return models.OrderItem(
        product_id=value.product_id,
        name=value.name,
        quantity=value.quantity,
        unit_price=money(value.unit_price),
        line_total=money(value.line_total),
    )


def order(value: order_pb2.Order) -> models.Order:
    """An order."""
    return models.Order(
        id=value.id,
        user_id=value.user_id,
        status=ORDER_STATUS[value.status],
        items=[order_item(item) for item in value.items],
        total=money(value.total),
        version=value.version,
        created_at=moment(value.created_at),
        updated_at=moment(value.updated_at),
    )


def refund(value: order_pb2.Refund) -> models.Refund:
    """How a refund stands."""
    return models.Refund(
        order_id=value.order_id,
        status=REFUND_STATUS[value.status],
        restock=value.restock,
        reason=value.reason,
        actor_id=value.actor_id,
        attempts=value.attempts,
        last_error=value.last_error or None,
        next_attempt_at=moment(value.next_attempt_at) if value.HasField("next_attempt_at") else None,
        requested_at=moment(value.requested_at),
        updated_at=moment(value.updated_at),
        payment_reference=value.payment_reference or None,
    )


# does not pass on: user_id, version, updated_at
def overview_order(value: order_pb2.Order, *, compact: bool) -> models.OverviewOrder:
    """An order in the overview; compact without dates and lines."""
    if compact:
        return models.OverviewOrder(  # leaves out: created_at, items
            id=value.id, status=ORDER_STATUS[value.status], total=money(value.total)
        )
    return models.OverviewOrder(
        id=value.id,
        status=ORDER_STATUS[value.status],
        total=money(value.total),
        created_at=moment(value.created_at),
        items=[order_item(item) for item in value.items],
    )


# does not pass on: status, roles, version, credential_version
def overview_profile(value: user_pb2.User, *, compact: bool) -> models.OverviewProfile:
    """The profile in the overview; compact without address and date."""
    if compact:
        return models.OverviewProfile(  # leaves out: created_at, email
            id=value.id, display_name=value.display_name
        )
    return models.OverviewProfile(
        id=value.id, display_name=value.display_name, email=value.email, created_at=moment(value.created_at)
    )


def transition(value: order_pb2.OrderTransition) -> models.OrderTransition:
    """A step of an order's history."""
    unspecified = value.from_status == order_pb2.ORDER_STATUS_UNSPECIFIED
    return models.OrderTransition(
        version=value.version,
        from_status=None if unspecified else ORDER_STATUS[value.from_status],
        to_status=ORDER_STATUS[value.to_status],
        actor_id=value.actor_id or None,
        reason=value.reason,
        occurred_at=moment(value.occurred_at),
        carrier=value.carrier or None,
        tracking_number=value.tracking_number or None,
    )


def audit_record(value: audit_pb2.AuditRecord, service: AuditService) -> models.AuditRecord:
    """A record of the audit trail of a service."""
    return models.AuditRecord(
        id=value.id,
        occurred_at=moment(value.occurred_at),
        service=service,
        action=value.action,
        actor=value.actor or None,
        subject=value.subject,
        request_id=value.request_id or None,
        address=value.address or None,
        before=_audit_values(value.before),
        after=_audit_values(value.after),
    )


def _audit_values(values: Struct) -> dict[str, AuditValue]:
    return {name: _audit_value(value) for name, value in values.fields.items()}


def _audit_value(value: Value) -> AuditValue:
    match value.WhichOneof("kind"):
        case "number_value":
            # The contract has whole numbers only, which are whole in a double as well.
            return int(value.number_value)
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [text.string_value for text in value.list_value.values]
        case _:
            return value.string_value


def key_set(value: JsonWebKeySet) -> models.JsonWebKeySet:
    """The public keys."""
    return models.JsonWebKeySet(
        keys=[
            models.JsonWebKey(kty=key.kty, crv=key.crv, x=key.x, y=key.y, kid=key.kid, use=key.use, alg=key.alg)
            for key in value.keys
        ]
    )
