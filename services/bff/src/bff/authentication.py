"""Who calls: the access token, then the live session behind it, then the user as they are now."""

from __future__ import annotations

from dataclasses import dataclass

from chassis.errors import ServiceError
from chassis.grpc import client
from chassis.http.application import Authenticated
from chassis.identity import Caller
from contracts.user.v1 import user_pb2
from contracts.user.v1.user_pb2_grpc import UserServiceStub
from starlette.requests import Request

from bff.sessions import Session, SessionStore
from bff.tokens import AccessTokens


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller's session and user record, as fresh as the last committed change."""

    session: Session
    user: user_pb2.User


class Authenticator:
    """Checks every request of an operation that needs a caller.

    The token's own roles are not looked at: a role taken away and a user disabled bite on the next request.
    """

    def __init__(self, tokens: AccessTokens, sessions: SessionStore, users: UserServiceStub) -> None:
        self._tokens = tokens
        self._sessions = sessions
        self._users = users

    async def __call__(self, request: Request) -> Authenticated[Principal]:
        """The authenticated caller.

        Raises:
            ServiceError: UNAUTHENTICATED, or UNAVAILABLE when sessions or users cannot be reached (fails closed).
        """
        credentials = request.headers.getlist("authorization")
        if len(credentials) != 1:
            raise ServiceError("UNAUTHENTICATED")
        scheme, _, token = credentials[0].partition(" ")
        if scheme.lower() != "bearer":
            raise ServiceError("UNAUTHENTICATED")
        claims = self._tokens.verify(token)
        check = await self._sessions.check(claims.session_id, claims.user_id)
        user = check.user or await resolve_user(self._users, claims.user_id)
        if user.status != user_pb2.USER_STATUS_ACTIVE:
            raise ServiceError("UNAUTHENTICATED")
        caller = Caller(user.id, check.session.id, tuple(user.roles))
        return Authenticated(caller, token, Principal(check.session, user))


async def resolve_user(users: UserServiceStub, user_id: str) -> user_pb2.User:
    """The user's record from the User service, which caches it for the next check.

    Raises:
        ServiceError: UNAUTHENTICATED when there is no such user any more.
    """
    try:
        user: user_pb2.User = await client.call(users.ResolveUser, user_pb2.ResolveUserRequest(id=user_id), retry=True)
    except ServiceError as error:
        if error.reason == "NOT_FOUND":
            raise ServiceError("UNAUTHENTICATED") from error
        raise
    return user


def client_address(request: Request) -> str:
    """The client's address as the edge saw it; the edge replaces whatever a client sends under this name."""
    return request.headers.get("x-client-address", "") or (request.client.host if request.client else "")
