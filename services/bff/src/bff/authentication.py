"""Who calls: the access token, then the live session behind it, then the user as they are now."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

import structlog
from chassis import context
from chassis.errors import ServiceError
from chassis.grpc import client
from chassis.http.application import Authenticated
from chassis.identity import Caller
from chassis.tokens import Claims, TokenVerifier
from contracts.user.v1 import session_pb2, user_pb2
from contracts.user.v1.session_pb2_grpc import SessionServiceStub
from contracts.user.v1.user_pb2_grpc import UserServiceStub
from starlette.requests import Request

from bff.sessions import SessionReader, is_valid

# The User service is told of a session's use at most this often.
_SEEN_INTERVAL_MS = 60_000
_NOTE_SECONDS = 2.0
# At once; the others say it with a later request.
_MOST_NOTES = 16
# After the User service could not be told.
_QUIET_SECONDS = 5.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller's session and user record, as fresh as the last committed change."""

    session: session_pb2.SessionRecord
    user: user_pb2.User


class Authenticator:
    """Checks every request of an operation that needs a caller.

    The token's own roles are not looked at: a role taken away and a user disabled bite on the next request.
    """

    def __init__(
        self, tokens: TokenVerifier, reader: SessionReader, users: UserServiceStub, sessions: SessionServiceStub
    ) -> None:
        self._tokens = tokens
        self._reader = reader
        self._users = users
        self._sessions = sessions
        # Sessions whose use is being noted.
        self._noting: dict[str, asyncio.Task[None]] = {}
        self._quiet_until = 0.0

    async def __call__(self, request: Request) -> Authenticated[Principal]:
        """The authenticated caller.

        Raises:
            ServiceError: UNAUTHENTICATED, or UNAVAILABLE when sessions or users cannot be reached (fails closed).
        """
        token = bearer_token(request)
        claims = self._tokens.verify(token)
        check = await self._reader.read(claims.session_id, claims.user_id)
        user = check.user or await self._resolve(claims, token)
        if user.status != user_pb2.USER_STATUS_ACTIVE or not is_valid(check.session, user):
            raise ServiceError("UNAUTHENTICATED")
        if time.time() * 1000 - check.session.last_seen_at_ms > _SEEN_INTERVAL_MS:
            self._note_use(claims, token)
        caller = Caller(user.id, check.session.id, tuple(user.roles))
        return Authenticated(caller, token, Principal(check.session, user))

    async def _resolve(self, claims: Claims, token: str) -> user_pb2.User:
        with context.serving(calling(claims, token)):
            return await resolve_user(self._users)

    def _note_use(self, claims: Claims, token: str) -> None:
        # Beside the request, which has no need to wait for it.
        busy = len(self._noting) >= _MOST_NOTES or claims.session_id in self._noting
        if not busy and time.monotonic() >= self._quiet_until:
            task = asyncio.create_task(self._noted(calling(claims, token)))
            self._noting[claims.session_id] = task
            task.add_done_callback(lambda _: self._noting.pop(claims.session_id))

    async def _noted(self, calling: context.RequestContext) -> None:
        deadline = asyncio.get_running_loop().time() + _NOTE_SECONDS
        with context.serving(replace(calling, deadline=deadline)):
            try:
                await client.call(self._sessions.NoteUse, session_pb2.NoteUseRequest())
            except ServiceError as error:
                self._quiet_until = time.monotonic() + _QUIET_SECONDS
                _log.info("the use of a session could not be noted", error=str(error))


def bearer_token(request: Request) -> str:
    """The access token that a request presents.

    Raises:
        ServiceError: UNAUTHENTICATED when there is none, or more than one.
    """
    credentials = request.headers.getlist("authorization")
    if len(credentials) != 1:
        raise ServiceError("UNAUTHENTICATED")
    scheme, _, token = credentials[0].partition(" ")
    if scheme.lower() != "bearer":
        raise ServiceError("UNAUTHENTICATED")
    # One or more spaces (RFC 9110, section 11.1).
    return token.lstrip(" ")


def calling(claims: Claims, token: str) -> context.RequestContext:
    """The context of a call about the token's own user, before anything else is known of them."""
    current = context.current()
    if current is None:
        raise LookupError("authentication is part of a request")
    return replace(current, caller=Caller(claims.user_id, claims.session_id, claims.roles), token=token)


async def resolve_user(users: UserServiceStub) -> user_pb2.User:
    """The caller's record from the User service, which caches it for the next check.

    Raises:
        ServiceError: UNAUTHENTICATED when there is no such user any more.
    """
    try:
        user: user_pb2.User = await client.call(users.ResolveUser, user_pb2.ResolveUserRequest(), retry=True)
    except ServiceError as error:
        if error.reason == "NOT_FOUND":
            raise ServiceError("UNAUTHENTICATED") from error
        raise
    return user


def client_address(request: Request) -> str:
    """The client's address as the edge saw it; the edge replaces whatever a client sends under this name."""
    return request.headers.get("x-client-address", "") or (request.client.host if request.client else "")
