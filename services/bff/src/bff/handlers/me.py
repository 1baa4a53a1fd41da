"""The caller: profile, password, sessions, overview."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from chassis import context
from chassis.errors import ServiceError
from chassis.grpc import client
from chassis.http.answers import empty_answer, expected_version, is_current, json_answer, not_modified
from chassis.http.application import Call
from contracts.http import models, operations
from contracts.order.v1 import order_pb2
from contracts.order.v1.order_pb2_grpc import OrderServiceStub
from contracts.user.v1 import user_pb2
from contracts.user.v1.user_pb2_grpc import UserServiceStub
from starlette.responses import Response

from bff import shapes
from bff.authentication import Principal, resolve_user
from bff.sessions import SessionStore
from bff.throttle import LoginThrottle

_NEWEST_ORDERS = 5
# What an optional part of the overview may spend of the request's time, so that a part that hangs is left out
# instead of failing the whole.
_OPTIONAL_SHARE = 0.6
_DEGRADABLE = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "OVERLOADED", "INTERNAL"}


class MeHandlers:
    """Everything under /v1/me."""

    def __init__(
        self, users: UserServiceStub, orders: OrderServiceStub, sessions: SessionStore, throttle: LoginThrottle
    ) -> None:
        self._users = users
        self._orders = orders
        self._sessions = sessions
        self._throttle = throttle

    async def get_me(self, call: Call[Principal], headers: operations.GetMeHeaders) -> Response:
        """GET /v1/me: the record the session check has just read."""
        user = _principal(call).user
        if is_current(headers.if_none_match, user.version):
            return not_modified(user.version)
        return json_answer(shapes.user(user), version=user.version)

    async def update_me(self, body: models.UpdateMeRequest, headers: operations.UpdateMeHeaders) -> Response:
        """PATCH /v1/me."""
        request = user_pb2.UpdateProfileRequest(
            display_name=body.display_name, expected_version=expected_version(headers.if_match)
        )
        user = await client.call(self._users.UpdateProfile, request)
        return json_answer(shapes.user(user), version=user.version)

    async def change_password(self, call: Call[Principal], body: models.ChangePasswordRequest) -> Response:
        """POST /v1/me/password: whoever else is logged in is out."""
        principal = _principal(call)
        await self._throttle.begin(principal.user.id)
        request = user_pb2.ChangePasswordRequest(current_password=body.current_password, new_password=body.new_password)
        await client.call(self._users.ChangePassword, request)
        await self._throttle.succeeded(principal.user.id)
        await self._sessions.revoke_all(principal.user.id, keep=principal.session.id)
        return empty_answer()

    async def list_my_sessions(self, call: Call[Principal]) -> Response:
        """GET /v1/me/sessions."""
        principal = _principal(call)
        sessions = await self._sessions.list(principal.user.id)
        return json_answer(
            models.SessionList(
                items=[
                    models.Session(
                        id=session.id,
                        created_at=session.created_at,
                        last_seen_at=session.last_seen_at,
                        user_agent=session.user_agent,
                        address=session.address,
                        current=session.id == principal.session.id,
                    )
                    for session in sessions
                ]
            )
        )

    async def revoke_my_session(self, call: Call[Principal], session_id: str) -> Response:
        """DELETE /v1/me/sessions/{session_id}."""
        if not await self._sessions.revoke(_principal(call).user.id, session_id):
            raise ServiceError("NOT_FOUND")
        return empty_answer()

    async def get_my_overview(self, call: Call[Principal], headers: operations.GetMyOverviewHeaders) -> Response:
        """GET /v1/me/overview: profile and orders at the same time; without the orders when they cannot be had."""
        compact = headers.x_client == "mobile"
        user, summary = await asyncio.gather(resolve_user(self._users, _principal(call).user.id), self._order_summary())
        profile = shapes.overview_profile(user, compact=compact)
        if summary is None:
            return json_answer(models.Overview(profile=profile, missing=["orders", "spent"]))
        return json_answer(
            models.Overview(
                profile=profile,
                orders=[shapes.overview_order(order, compact=compact) for order in summary.newest],
                spent=[shapes.money(amount) for amount in summary.spent],
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
            with context.serving(replace(current, deadline=sooner)):
                request = order_pb2.SummarizeOrdersRequest(newest=_NEWEST_ORDERS)
                summary: order_pb2.OrderSummary = await client.call(self._orders.SummarizeOrders, request, retry=True)
        except ServiceError as error:
            if error.reason not in _DEGRADABLE:
                raise
            return None
        return summary


def _principal(call: Call[Principal]) -> Principal:
    if call.principal is None:
        raise LookupError("an operation with a permission always has a principal")
    return call.principal
