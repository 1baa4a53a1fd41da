"""Who calls: the access token, then the live session behind it, then the user as they are now."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec
import structlog
from chassis import context
from chassis.errors import ServiceError
from chassis.http.application import Authenticated
from chassis.http.request import Request
from chassis.identity import Caller
from chassis.tokens import Claims, TokenVerifier
from contracts.user.v1 import session_pb2, user_pb2

from bff.sessions import SessionReader, is_valid

if TYPE_CHECKING:
    from contracts.user.v1.session_pb2_grpc import SessionServiceAsyncStub
    from contracts.user.v1.user_pb2_grpc import UserServiceAsyncStub

# The User service is told of a session's use at most this often.
_SEEN_INTERVAL_MS = 60_000
# How long the one request a minute that tells it may wait for that.
_NOTE_SECONDS = 0.25
# For how long the User service is not told anything after it has not answered in time, so that requests do not wait for it.
_QUIET_SECONDS = 5.0
_log = structlog.get_logger(__name__)


class Principal(msgspec.Struct, frozen=True):
    """The caller's session and user record, as fresh as the last committed change."""

    session: session_pb2.SessionRecord
    user: user_pb2.User


class Authenticator:
    """Checks every request of an operation that needs a caller.

    The roles in the token are ignored, so that taking a role away or disabling a user takes effect on the next request.
    """

    def __init__(
        self,
        tokens: TokenVerifier,
        reader: SessionReader,
        users: UserServiceAsyncStub,
        sessions: SessionServiceAsyncStub,
    ) -> None:
        self._tokens = tokens
        self._reader = reader
        self._users = users
        self._sessions = sessions
        # Sessions whose use is being noted.
        self._noting: set[str] = set()
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
            await self._note_use(claims, token)
        caller = Caller(user.id, check.session.id, tuple(user.roles))
        return Authenticated(caller, token, Principal(check.session, user))

    async def _resolve(self, claims: Claims, token: str) -> user_pb2.User:
        with context.serving(calling(claims, token)):
            return await resolve_user(self._users)

    async def _note_use(self, claims: Claims, token: str) -> None:
        """Part of the request, which waits for it: Envoy ends a call together with the request that made it.

        A failure is no reason to refuse the request: the session's next one tells it again.
        """
        loop = asyncio.get_running_loop()
        if claims.session_id in self._noting or loop.time() < self._quiet_until:
            return
        current = calling(claims, token)
        patience = loop.time() + _NOTE_SECONDS
        deadline = patience if current.deadline is None else min(patience, current.deadline)
        self._noting.add(claims.session_id)
        try:
            with context.serving(msgspec.structs.replace(current, deadline=deadline)):
                await self._sessions.NoteUse(session_pb2.NoteUseRequest())
        except ServiceError as error:
            if error.reason == "DEADLINE_EXCEEDED":
                self._quiet_until = loop.time() + _QUIET_SECONDS
            _log.info("the use of a session could not be noted", error=str(error))
        finally:
            self._noting.discard(claims.session_id)


def bearer_token(request: Request) -> str:
    """The access token that a request presents.

    Raises:
        ServiceError: UNAUTHENTICATED when there is none, or more than one.
    """
    credentials = request.only(b"authorization")
    if credentials is None:
        raise ServiceError("UNAUTHENTICATED")
    scheme, _, token = credentials.partition(" ")
    if scheme.lower() != "bearer":
        raise ServiceError("UNAUTHENTICATED")
    # One or more spaces (RFC 9110, section 11.1).
    return token.lstrip(" ")


def calling(claims: Claims, token: str) -> context.RequestContext:
    """The context of a call about the token's own user, before anything else is known of them."""
    current = context.current()
    if current is None:
        raise LookupError("authentication is part of a request")
    caller = Caller(claims.user_id, claims.session_id, claims.roles)
    return msgspec.structs.replace(current, caller=caller, token=token)


async def resolve_user(users: UserServiceAsyncStub) -> user_pb2.User:
    """The caller's record from the User service, which caches it for the next check.

    Raises:
        ServiceError: UNAUTHENTICATED when there is no such user any more.
    """
    try:
        user: user_pb2.User = await users.ResolveUser(user_pb2.ResolveUserRequest())
    except ServiceError as error:
        if error.reason == "NOT_FOUND":
            raise ServiceError("UNAUTHENTICATED") from error
        raise
    return user


def client_address(request: Request) -> str:
    """The client's address as the edge saw it; the edge replaces whatever a client sends under this name."""
    return request.header(b"x-client-address") or request.peer
