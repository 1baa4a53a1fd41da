"""The caller: profile, password, sessions, overview."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from chassis import context
from chassis.errors import ServiceError
from chassis.http.answers import empty_answer, is_current, json_answer, matching, not_modified
from chassis.http.application import Call
from contracts.bff.v1 import models, operations
from contracts.order.v1 import order_pb2
from contracts.user.v1 import session_pb2, user_pb2
from starlette.responses import Response

from bff import shapes
from bff.authentication import Principal, resolve_user

if TYPE_CHECKING:
    from contracts.order.v1.order_pb2_grpc import OrderServiceAsyncStub
    from contracts.user.v1.session_pb2_grpc import SessionServiceAsyncStub
    from contracts.user.v1.user_pb2_grpc import UserServiceAsyncStub

_NEWEST_ORDERS = 5
# What an optional part of the overview may spend of the request's time, so that a part that hangs is left out
# instead of failing the whole.
_OPTIONAL_SHARE = 0.6
_DEGRADABLE = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "OVERLOADED", "INTERNAL"}


class MeHandlers:
    """Everything under /v1/me."""

    def __init__(
        self, users: UserServiceAsyncStub, orders: OrderServiceAsyncStub, sessions: SessionServiceAsyncStub
    ) -> None:
        self._users = users
        self._orders = orders
        self._sessions = sessions

    async def get_me(self, call: Call[Principal], headers: operations.GetMeHeaders) -> Response:
        """GET /v1/me: the record the session check has just read."""
        user = _principal(call).user
        if is_current(headers.if_none_match, user.version):
            return not_modified(user.version)
        return json_answer(shapes.user(user), version=user.version)

    async def update_me(self, body: models.UpdateMeRequest, headers: operations.UpdateMeHeaders) -> Response:
        """PATCH /v1/me."""
        request = user_pb2.UpdateProfileRequest(display_name=body.display_name)
        user = await matching(headers.if_match, request, lambda: self._users.UpdateProfile(request))
        return json_answer(shapes.user(user), version=user.version)

    async def change_password(self, body: models.ChangePasswordRequest) -> Response:
        """POST /v1/me/password: all other sessions of the user end."""
        request = user_pb2.ChangePasswordRequest(current_password=body.current_password, new_password=body.new_password)
        await self._users.ChangePassword(request)
        return empty_answer()

    async def list_my_sessions(self, call: Call[Principal]) -> Response:
        """GET /v1/me/sessions."""
        own = _principal(call).session.id
        found = await self._sessions.ListSessions(session_pb2.ListSessionsRequest())
        return json_answer(models.SessionList(items=[shapes.session(session, own) for session in found.sessions]))

    async def revoke_my_session(self, session_id: str) -> Response:
        """DELETE /v1/me/sessions/{session_id}."""
        await self._sessions.RevokeSession(session_pb2.RevokeSessionRequest(id=session_id))
        return empty_answer()

    async def get_my_overview(self, headers: operations.GetMyOverviewHeaders) -> Response:
        """GET /v1/me/overview: profile and orders at the same time; without the orders when they cannot be had."""
        compact = headers.x_client == "mobile"
        user, summary = await asyncio.gather(resolve_user(self._users), self._order_summary())
        profile = shapes.overview_profile(user, compact=compact)
        if summary is None:
            # leaves out: orders, spent
            return json_answer(models.Overview(profile=profile, missing=["orders", "spent"]))
        return json_answer(
            models.Overview(
                profile=profile,
                orders=[shapes.overview_order(order, compact=compact) for order in summary.newest],
                spent=[shapes.spent(amount) for amount in summary.spent],
                missing=[],
            )
        )

    async def _order_summary(self) -> order_pb2.OrderSummary | None:
        current = context.current()
        remaining = current.remaining() if current else None
        if current is None or remaining is None:
            raise LookupError("the overview is served within a request")
        sooner = asyncio.get_running_loop().time() + remaining * _OPTIONAL_SHARE
        try:
            with context.serving(msgspec.structs.replace(current, deadline=sooner)):
                request = order_pb2.SummarizeOrdersRequest(newest=_NEWEST_ORDERS)
                summary: order_pb2.OrderSummary = await self._orders.SummarizeOrders(request)
        except ServiceError as error:
            if error.reason not in _DEGRADABLE:
                raise
            return None
        return summary


def _principal(call: Call[Principal]) -> Principal:
    if call.principal is None:
        raise LookupError("an operation with a permission always has a principal")
    return call.principal
