"""SessionService: protobuf to use cases and back."""

from __future__ import annotations

from uuid import UUID

from chassis import context
from contracts.user.v1 import session_pb2
from contracts.user.v1.session_pb2_grpc import SessionServiceServicer
from google.protobuf.timestamp_pb2 import Timestamp

from user.service.credentials import Credentials
from user.service.sessions import Sessions, Tokens
from user.service.users import UserUseCases


class SessionHandlers(SessionServiceServicer):
    """The servicer."""

    def __init__(self, sessions: Sessions, credentials: Credentials, users: UserUseCases) -> None:
        self._sessions = sessions
        self._credentials = credentials
        self._users = users

    async def LogIn(self, request: session_pb2.LogInRequest, _context: object) -> session_pb2.Grant:
        """See the contract."""
        logged_in = await self._credentials.log_in(request.email, request.password, request.client)
        return _grant(logged_in.tokens, logged_in.device_token)

    async def Refresh(self, request: session_pb2.RefreshRequest, _context: object) -> session_pb2.Grant:
        """See the contract."""
        return _grant(await self._sessions.refresh(request.refresh_token, request.client))

    async def EndSession(
        self, request: session_pb2.EndSessionRequest, _context: object
    ) -> session_pb2.EndSessionResponse:
        """See the contract."""
        await self._sessions.end_by_token(request.refresh_token)
        return session_pb2.EndSessionResponse()

    async def LogOut(self, _request: session_pb2.LogOutRequest, _context: object) -> session_pb2.LogOutResponse:
        """See the contract."""
        caller = context.caller()
        await self._sessions.end_own(caller.user_id, caller.session_id)
        return session_pb2.LogOutResponse()

    async def NoteUse(self, _request: session_pb2.NoteUseRequest, _context: object) -> session_pb2.NoteUseResponse:
        """See the contract."""
        caller = context.caller()
        await self._sessions.note_use(caller.user_id, caller.session_id)
        return session_pb2.NoteUseResponse()

    async def ListSessions(
        self, _request: session_pb2.ListSessionsRequest, _context: object
    ) -> session_pb2.ListSessionsResponse:
        """See the contract."""
        caller = context.caller()
        records = await self._sessions.list(caller.user_id, caller.session_id)
        return session_pb2.ListSessionsResponse(sessions=[_session(record) for record in records])

    async def RevokeSession(
        self, request: session_pb2.RevokeSessionRequest, _context: object
    ) -> session_pb2.RevokeSessionResponse:
        """See the contract."""
        caller = context.caller()
        await self._sessions.revoke(caller.user_id, caller.session_id, request.id)
        return session_pb2.RevokeSessionResponse()

    async def RevokeUserSessions(
        self, request: session_pb2.RevokeUserSessionsRequest, _context: object
    ) -> session_pb2.RevokeUserSessionsResponse:
        """See the contract."""
        await self._users.end_sessions(UUID(request.user_id))
        return session_pb2.RevokeUserSessionsResponse()


def _grant(tokens: Tokens, device_token: str = "") -> session_pb2.Grant:
    return session_pb2.Grant(
        access_token=tokens.access_token,
        expires_in_seconds=tokens.expires_in,
        refresh_token=tokens.refresh_token,
        device_token=device_token,
        refresh_expires_in_seconds=tokens.refresh_expires_in,
    )


def _session(record: session_pb2.SessionRecord) -> session_pb2.Session:
    # What only this service may know stays here; the record's user is the caller.
    # does not pass on: user_id, credential_version, next_credential_version, idle_ms, salt
    # does not pass on: generation, exchanged_at_ms, exchanged_by
    created_at, last_seen_at = Timestamp(), Timestamp()
    created_at.FromMilliseconds(record.created_at_ms)
    last_seen_at.FromMilliseconds(record.last_seen_at_ms)
    return session_pb2.Session(
        id=record.id,
        created_at=created_at,
        last_seen_at=last_seen_at,
        user_agent=record.user_agent,
        address=record.address,
    )
