"""UserService: protobuf to use cases and back."""

from __future__ import annotations

from uuid import UUID

from chassis import context
from chassis.cursors import CursorSigner
from contracts.user.v1 import user_pb2
from contracts.user.v1.user_pb2_grpc import UserServiceServicer

from user.domain.user import parse_roles
from user.service import records
from user.service.credentials import Credentials
from user.service.users import UserUseCases

_FROM_WIRE = {number: status for status, number in records.STATUS.items()}


class UserHandlers(UserServiceServicer):
    """The servicer."""

    def __init__(self, users: UserUseCases, credentials: Credentials, cursors: CursorSigner) -> None:
        self._users = users
        self._credentials = credentials
        self._cursors = cursors

    async def Register(self, request: user_pb2.RegisterRequest, _context: object) -> user_pb2.User:
        """See the contract."""
        return records.user(await self._users.register(request.email, request.password, request.display_name))

    async def ResolveUser(self, _request: user_pb2.ResolveUserRequest, _context: object) -> user_pb2.User:
        """See the contract."""
        return await self._users.resolve(UUID(context.caller().user_id))

    async def UpdateProfile(self, request: user_pb2.UpdateProfileRequest, _context: object) -> user_pb2.User:
        """See the contract."""
        user_id = UUID(context.caller().user_id)
        return records.user(await self._users.update_profile(user_id, request.display_name, _version(request)))

    async def ChangePassword(self, request: user_pb2.ChangePasswordRequest, _context: object) -> user_pb2.User:
        """See the contract."""
        caller = context.caller()
        changed = await self._credentials.change_password(
            UUID(caller.user_id), caller.session_id, request.current_password, request.new_password
        )
        return records.user(changed)

    async def ListUsers(self, request: user_pb2.ListUsersRequest, _context: object) -> user_pb2.ListUsersResponse:
        """See the contract."""
        scope = f"users|{request.search}"
        key = self._cursors.decode(scope, request.page.cursor, length=1)
        limit = request.page.limit
        found = await self._users.page(request.search, UUID(key[0]) if key else None, limit + 1)
        shown, more = found[:limit], len(found) > limit
        return user_pb2.ListUsersResponse(
            users=[records.user(user) for user in shown],
            next_cursor=self._cursors.encode(scope, [str(shown[-1].id)]) if more else "",
        )

    async def UpdateUser(self, request: user_pb2.UpdateUserRequest, _context: object) -> user_pb2.User:
        """See the contract."""
        roles = parse_roles(list(request.roles.roles)) if request.HasField("roles") else None
        status = _FROM_WIRE.get(request.status)
        return records.user(await self._users.administer(UUID(request.id), roles, status, _version(request)))


def _version(request: user_pb2.UpdateProfileRequest | user_pb2.UpdateUserRequest) -> int | None:
    return request.expected_version if request.HasField("expected_version") else None
