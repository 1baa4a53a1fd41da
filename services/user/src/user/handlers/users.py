"""UserService: protobuf to use cases and back."""

from __future__ import annotations

from uuid import UUID

from chassis import context
from chassis.cache import VersionedCache
from chassis.cursors import CursorSigner
from contracts.user.v1 import user_pb2
from contracts.user.v1.user_pb2_grpc import UserServiceServicer
from google.protobuf.timestamp_pb2 import Timestamp

from user.domain.user import User, UserStatus, parse_roles
from user.service.credentials import Credentials
from user.service.users import UserUseCases

_TO_WIRE = {status: user_pb2.UserStatus.Value(f"USER_STATUS_{status.name}") for status in UserStatus}
_FROM_WIRE = {number: status for status, number in _TO_WIRE.items()}


class UserHandlers(UserServiceServicer):
    """The servicer."""

    def __init__(
        self, users: UserUseCases, credentials: Credentials, cache: VersionedCache, cursors: CursorSigner
    ) -> None:
        self._users = users
        self._credentials = credentials
        self._cache = cache
        self._cursors = cursors

    async def Register(self, request: user_pb2.RegisterRequest, _context: object) -> user_pb2.User:
        """See the contract."""
        return _message(await self._users.register(request.email, request.password, request.display_name))

    async def ResolveUser(self, _request: user_pb2.ResolveUserRequest, _context: object) -> user_pb2.User:
        """See the contract. Fills the cache that the BFF's session check reads."""
        answer = _message(await self._users.get(UUID(context.caller().user_id)))
        await self._cache.offer(answer.id, answer.version, answer.SerializeToString())
        return answer

    async def UpdateProfile(self, request: user_pb2.UpdateProfileRequest, _context: object) -> user_pb2.User:
        """See the contract."""
        user_id = UUID(context.caller().user_id)
        return _message(await self._users.update_profile(user_id, request.display_name, _version(request)))

    async def ChangePassword(self, request: user_pb2.ChangePasswordRequest, _context: object) -> user_pb2.User:
        """See the contract."""
        caller = context.caller()
        changed = await self._credentials.change_password(
            UUID(caller.user_id), caller.session_id, request.current_password, request.new_password
        )
        return _message(changed)

    async def ListUsers(self, request: user_pb2.ListUsersRequest, _context: object) -> user_pb2.ListUsersResponse:
        """See the contract."""
        scope = f"users|{request.search}"
        key = self._cursors.decode(scope, request.page.cursor, length=1)
        limit = request.page.limit
        found = await self._users.page(request.search, UUID(key[0]) if key else None, limit + 1)
        shown, more = found[:limit], len(found) > limit
        return user_pb2.ListUsersResponse(
            users=[_message(user) for user in shown],
            next_cursor=self._cursors.encode(scope, [str(shown[-1].id)]) if more else "",
        )

    async def UpdateUser(self, request: user_pb2.UpdateUserRequest, _context: object) -> user_pb2.User:
        """See the contract."""
        roles = parse_roles(list(request.roles.roles)) if request.HasField("roles") else None
        status = _FROM_WIRE.get(request.status)
        return _message(await self._users.administer(UUID(request.id), roles, status, _version(request)))


def _version(request: user_pb2.UpdateProfileRequest | user_pb2.UpdateUserRequest) -> int | None:
    return request.expected_version if request.HasField("expected_version") else None


# does not pass on: password_hash
def _message(user: User) -> user_pb2.User:
    created_at = Timestamp()
    created_at.FromDatetime(user.created_at)
    return user_pb2.User(
        id=str(user.id),
        email=user.email,
        display_name=user.display_name,
        status=_TO_WIRE[user.status],
        roles=[role.value for role in user.roles],
        version=user.version,
        created_at=created_at,
        credential_version=user.credential_version,
    )
