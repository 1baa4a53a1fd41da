"""User administration."""

from __future__ import annotations

from chassis.errors import FieldViolation, ServiceError
from chassis.grpc import client
from chassis.http.answers import empty_answer, expected_version, json_answer
from contracts.common.v1 import paging_pb2
from contracts.http import models, operations
from contracts.user.v1 import user_pb2
from contracts.user.v1.user_pb2_grpc import UserServiceStub
from msgspec import UNSET
from starlette.responses import Response

from bff import shapes
from bff.sessions import SessionStore


class UserHandlers:
    """listUsers, updateUser, revokeUserSessions."""

    def __init__(self, users: UserServiceStub, sessions: SessionStore) -> None:
        self._users = users
        self._sessions = sessions

    async def list_users(self, query: operations.ListUsersQuery) -> Response:
        """GET /v1/admin/users."""
        request = user_pb2.ListUsersRequest(
            page=paging_pb2.PageRequest(limit=query.limit, cursor=query.cursor or ""), search=query.q or ""
        )
        page = await client.call(self._users.ListUsers, request, retry=True)
        items = [shapes.user(user) for user in page.users]
        return json_answer(models.UserPage(items=items, next_cursor=page.next_cursor or None))

    async def update_user(
        self, user_id: str, body: models.UpdateUserRequest, headers: operations.UpdateUserHeaders
    ) -> Response:
        """PATCH /v1/admin/users/{user_id}. A disabled user's sessions end, so that enabling revives none."""
        if body.roles is UNSET and body.status is UNSET:
            raise ServiceError("INVALID_ARGUMENT", violations=(FieldViolation("", "roles or status is required"),))
        request = user_pb2.UpdateUserRequest(
            id=user_id,
            roles=None if body.roles is UNSET else user_pb2.RoleList(roles=body.roles),
            status=user_pb2.USER_STATUS_UNSPECIFIED if body.status is UNSET else shapes.USER_STATUS_NUMBER[body.status],
            expected_version=expected_version(headers.if_match),
        )
        user = await client.call(self._users.UpdateUser, request)
        if user.status == user_pb2.USER_STATUS_DISABLED:
            await self._sessions.revoke_all(user.id)
        return json_answer(shapes.user(user), version=user.version)

    async def revoke_user_sessions(self, user_id: str) -> Response:
        """DELETE /v1/admin/users/{user_id}/sessions."""
        await client.call(self._users.ResolveUser, user_pb2.ResolveUserRequest(id=user_id), retry=True)
        await self._sessions.revoke_all(user_id)
        return empty_answer()
