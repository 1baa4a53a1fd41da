"""User administration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chassis.errors import FieldViolation, ServiceError
from chassis.http.answers import empty_answer, json_answer, matching
from contracts.bff.v1 import models, operations
from contracts.common.v1 import paging_pb2
from contracts.user.v1 import session_pb2, user_pb2
from msgspec import UNSET
from starlette.responses import Response

from bff import shapes

if TYPE_CHECKING:
    from contracts.user.v1.session_pb2_grpc import SessionServiceAsyncStub
    from contracts.user.v1.user_pb2_grpc import UserServiceAsyncStub


class UserHandlers:
    """listUsers, updateUser, revokeUserSessions."""

    def __init__(self, users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub) -> None:
        self._users = users
        self._sessions = sessions

    async def list_users(self, query: operations.ListUsersQuery) -> Response:
        """GET /v1/admin/users."""
        request = user_pb2.ListUsersRequest(
            page=paging_pb2.PageRequest(limit=query.limit, cursor=query.cursor or ""), search=query.q or ""
        )
        page = await self._users.ListUsers(request)
        items = [shapes.user(user) for user in page.users]
        return json_answer(models.UserPage(items=items, next_cursor=page.next_cursor or None))

    async def update_user(
        self, user_id: str, body: models.UpdateUserRequest, headers: operations.UpdateUserHeaders
    ) -> Response:
        """PATCH /v1/admin/users/{user_id}."""
        if body.roles is UNSET and body.status is UNSET:
            raise ServiceError("INVALID_ARGUMENT", violations=(FieldViolation("", "roles or status is required"),))
        request = user_pb2.UpdateUserRequest(
            id=user_id,
            roles=None if body.roles is UNSET else user_pb2.RoleList(roles=body.roles),
            status=user_pb2.USER_STATUS_UNSPECIFIED if body.status is UNSET else shapes.USER_STATUS_NUMBER[body.status],
        )
        user = await matching(headers.if_match, request, lambda: self._users.UpdateUser(request))
        return json_answer(shapes.user(user), version=user.version)

    async def revoke_user_sessions(self, user_id: str) -> Response:
        """DELETE /v1/admin/users/{user_id}/sessions."""
        request = session_pb2.RevokeUserSessionsRequest(user_id=user_id)
        await self._sessions.RevokeUserSessions(request)
        return empty_answer()
