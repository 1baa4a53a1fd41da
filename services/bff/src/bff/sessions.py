"""The session behind an access token, as the User service keeps it; this service only reads."""

from __future__ import annotations

import msgspec
from chassis.cache import payload, stored_under
from chassis.errors import ServiceError
from chassis.valkey import PipelinedClient, ValkeyError
from contracts.user.v1.session_pb2 import SessionRecord
from contracts.user.v1.user_pb2 import User
from google.protobuf.message import DecodeError

_SESSION, _USER = stored_under(SessionRecord), stored_under(User)


class SessionCheck(msgspec.Struct, frozen=True):
    """A session's record and, where it is cached, its user's."""

    session: SessionRecord
    user: User | None


class SessionReader:
    """Reads session and user in one round trip."""

    def __init__(self, client: PipelinedClient) -> None:
        self._client = client

    async def read(self, session_id: str, user_id: str) -> SessionCheck:
        """What is stored of the session of a request. Whether it is still valid is for `is_valid` to say.

        Raises:
            ServiceError: UNAUTHENTICATED when there is no such session of this user; UNAVAILABLE when Valkey cannot be
                reached: nobody can be authenticated then.
        """
        try:
            raw, user_entry = await self._client.mget(_SESSION + session_id, _USER + user_id)
        except (ValkeyError, OSError) as error:
            raise ServiceError("UNAVAILABLE") from error
        if raw is None:
            raise ServiceError("UNAUTHENTICATED")
        try:
            session = SessionRecord.FromString(raw)
            record = payload(user_entry)
            user = None if record is None else User.FromString(record)
        except DecodeError as error:
            raise ServiceError("UNAUTHENTICATED") from error
        if session.user_id != user_id:
            raise ServiceError("UNAUTHENTICATED")
        # A record that an older User service has cached lacks the credential version.
        return SessionCheck(session, user if user is not None and user.credential_version else None)


def is_valid(session: SessionRecord, user: User) -> bool:
    """Whether nothing has ended the user's sessions since this one was granted."""
    version = user.credential_version
    return version == session.credential_version or version == session.next_credential_version  # noqa: PLR1714 - hot
