"""Sessions: granted, exchanged, listed and ended.

A session is valid while its record is there and the user's credential version is the one under which it was granted.
Whatever ends all sessions of a user (a password change, disabling, "log out everywhere") replaces that version in the
transaction that decides it: a login or an exchange that began before, and is stored after, is refused as well.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from chassis.database import Database
from chassis.errors import ServiceError
from chassis.metrics.families import Counter
from chassis.networks import network
from contracts.user.v1.session_pb2 import Client, SessionRecord

from user.domain.errors import InvalidRefreshTokenError, NotFoundError, SessionEndedError
from user.domain.user import User
from user.repository import users
from user.repository.sessions import SessionStore, Stored
from user.service import acts
from user.service.access_tokens import AccessTokens
from user.service.acts import Ended
from user.service.refresh_tokens import RefreshTokens, parse

_log = structlog.get_logger(__name__)
_GRANTED = Counter(
    "backend_sessions_granted_total",
    "Sessions that began; crowded are those of a network that began too many",
    crowded=("yes", "no"),
)
_REFRESHES = Counter(
    "backend_refresh_tokens_total",
    "Refresh tokens that were presented: exchanged, exchanged again by the same client, used by somebody a second time, "
    "or of no session",
    result=("exchanged", "repeated", "reused", "invalid"),
)
# How often a record is read again that others replace meanwhile, before the caller is told to try again.
_ATTEMPTS = 8
# A record is rewritten for "last seen" at most this often.
_SEEN_INTERVAL_MS = 60_000
_SALT_BYTES = 16
_CROWDED_IDLE_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Tokens:
    """A pair, for a client."""

    access_token: str
    expires_in: int
    refresh_token: str
    # Seconds until the session ends unless the refresh token is exchanged.
    refresh_expires_in: int


class Sessions:
    """The use cases around sessions.

    Args:
        database: the user database.
        store: the records.
        access_tokens, refresh_tokens: make what clients get.
        crowd: how many sessions of full length one network (an address, an IPv6 /64) may begin in a day; further ones last
            only an hour unless they are exchanged. So the number of stored sessions is bounded by addresses, however many
            accounts somebody makes.
        grace: for how long the client that exchanged a refresh token last may repeat that, and gets the same successor.
        now: the clock, UTC.
        new_id: makes session ids.

    Every method raises ServiceError UNAVAILABLE when Valkey or the database cannot be reached.
    """

    def __init__(
        self,
        *,
        database: Database,
        store: SessionStore,
        access_tokens: AccessTokens,
        refresh_tokens: RefreshTokens,
        crowd: int,
        grace: timedelta,
        now: Callable[[], datetime],
        new_id: Callable[[], UUID],
    ) -> None:
        self._database = database
        self._store = store
        self._access_tokens = access_tokens
        self._refresh_tokens = refresh_tokens
        self._crowd = crowd
        self._grace_ms = int(grace.total_seconds() * 1000)
        self._now = now
        self._new_id = new_id

    async def grant(self, user: User, client: Client) -> Tokens:
        """A new session for a user who has proved who they are, under the credential version that `user` has.

        Nobody has its tokens unless that they were granted is in the audit trail.
        """
        now = self._now_ms()
        crowded = await self._store.begun_at(network(client.address)) > self._crowd
        record = SessionRecord(
            # leaves out: next_credential_version, generation, exchanged_at_ms, exchanged_by
            id=str(self._new_id()),
            user_id=str(user.id),
            credential_version=user.credential_version,
            created_at_ms=now,
            last_seen_at_ms=now,
            user_agent=client.user_agent,
            address=client.address,
            salt=secrets.token_bytes(_SALT_BYTES),
            idle_ms=_CROWDED_IDLE_MS if crowded else 0,
        )
        tokens = self._tokens(user, record)
        async with self._database.transaction() as connection:
            surplus = await self._store.start(record)
            moment = self._now()
            acts.logged_in(connection, user, record.id, moment)
            for session_id in surplus:
                acts.session_ended(connection, record.user_id, session_id, Ended.TOO_MANY, moment)
        _GRANTED.add("yes" if crowded else "no")
        return tokens

    async def refresh(self, refresh_token: str, client: Client) -> Tokens:
        """Exchange a refresh token. The token is spent only when the new pair is ready to be returned.

        Raises:
            InvalidRefreshTokenError: it is unknown, of an ended session, or spent; the last ends the session.
        """
        presented = parse(refresh_token)
        if presented is None:
            _REFRESHES.add("invalid")
            raise InvalidRefreshTokenError
        for _ in range(_ATTEMPTS):
            stored = await self._store.find(presented.session_id)
            if stored is None or not self._refresh_tokens.is_authentic(presented, stored.record):
                _REFRESHES.add("invalid")
                raise InvalidRefreshTokenError
            record = stored.record
            user = await self._user_of(record)
            if user is None:
                await self._store.end(record.user_id, [record.id])
                _REFRESHES.add("invalid")
                raise InvalidRefreshTokenError
            if presented.generation < record.generation:
                if self._may_repeat(presented.generation, record, client):
                    _REFRESHES.add("repeated")
                    return self._tokens(user, record)
                _REFRESHES.add("reused")
                await self._end(record.user_id, record.id, Ended.TOKEN_REUSED)
                raise InvalidRefreshTokenError
            # A later generation than the record's was issued by us, too: Valkey may lose the last second of writes when it crashes.
            exchanged = self._exchanged(record, presented.generation + 1, client)
            tokens = self._tokens(user, exchanged)
            if await self._store.replace(stored, exchanged, prolong=True):
                _REFRESHES.add("exchanged")
                return tokens
        raise ServiceError("UNAVAILABLE")

    async def end_by_token(self, refresh_token: str) -> None:
        """End the session of a refresh token that we have issued, current or spent."""
        presented = parse(refresh_token)
        stored = await self._store.find(presented.session_id) if presented else None
        if presented and stored and self._refresh_tokens.is_authentic(presented, stored.record):
            await self._end(stored.record.user_id, stored.record.id, Ended.LOGGED_OUT)

    async def valid(self, user_id: str, session_id: str) -> Stored:
        """The session of an access token.

        Raises:
            SessionEndedError: it has ended.
        """
        stored = await self._store.find(session_id)
        if stored is None or stored.record.user_id != user_id or await self._user_of(stored.record) is None:
            raise SessionEndedError
        return stored

    async def end_own(self, user_id: str, session_id: str) -> None:
        """Log out.

        Raises:
            SessionEndedError: the session has ended already.
        """
        stored = await self._store.find(session_id)
        if stored is None or stored.record.user_id != user_id:
            raise SessionEndedError
        if not await self._end(user_id, session_id, Ended.LOGGED_OUT):
            raise SessionEndedError

    async def note_use(self, user_id: str, session_id: str) -> None:
        """Remember that a session is in use.

        Raises:
            SessionEndedError: it has ended.
        """
        stored = await self.valid(user_id, session_id)
        now = self._now_ms()
        if now - stored.record.last_seen_at_ms > _SEEN_INTERVAL_MS:
            seen = _copy(stored.record)
            seen.last_seen_at_ms = now
            # Whoever has just replaced the record has noted the use as well, or has ended the session.
            await self._store.replace(stored, seen, prolong=False)

    async def list(self, user_id: str, session_id: str) -> list[SessionRecord]:
        """The valid sessions of a user, newest first.

        Raises:
            SessionEndedError: the asking session has ended.
        """
        await self.valid(user_id, session_id)
        async with self._database.connection() as connection:
            user = await users.get(connection, UUID(user_id))
        return [record for record in await self._store.of_user(user_id) if granted_under(record, user)]

    async def revoke(self, user_id: str, own_session_id: str, session_id: str) -> None:
        """End one session of a user.

        Raises:
            SessionEndedError: the asking session has ended.
            NotFoundError: they have no such session.
        """
        await self.valid(user_id, own_session_id)
        stored = await self._store.find(session_id)
        if stored is None or stored.record.user_id != user_id:
            raise NotFoundError
        if not await self._end(user_id, session_id, Ended.REVOKED):
            raise NotFoundError

    async def keep(self, session_id: str, user: User, next_version: int) -> None:
        """Let one session live on under `next_version`, which its user is about to get; it stays valid until then.

        Args:
            session_id: which one.
            user: as locked by the transaction that changes it.
            next_version: the credential version that it changes to.

        Raises:
            SessionEndedError: it has ended.
        """
        for _ in range(_ATTEMPTS):
            stored = await self._store.find(session_id)
            if stored is None or stored.record.user_id != str(user.id) or not granted_under(stored.record, user):
                raise SessionEndedError
            kept = _copy(stored.record)
            kept.credential_version, kept.next_credential_version = user.credential_version, next_version
            if await self._store.replace(stored, kept, prolong=False):
                return
        raise ServiceError("UNAVAILABLE")

    async def remove_ended(self, user: User) -> None:
        """Remove the records of sessions that the user's credential version has ended.

        They are invalid already, so a failure here does not mean that the change has failed.
        """
        try:
            records = await self._store.of_user(str(user.id))
            await self._store.end(str(user.id), [r.id for r in records if not granted_under(r, user)])
        except ServiceError as error:
            _log.warning("records of ended sessions stay until they expire", user_id=str(user.id), error=str(error))

    async def is_used_from(self, user: User, address: str) -> bool:
        """Whether a valid session of the user was last used at this address, or at one of the same network."""
        here = network(address)
        records = await self._store.of_user(str(user.id))
        return any(network(record.address) == here for record in records if granted_under(record, user))

    async def _end(self, user_id: str, session_id: str, why: Ended) -> bool:
        """End a session, and keep that in the audit trail; False when it had ended already.

        Without the database no session ends, rather than one without a record. (One whose commit fails has ended: Valkey knows no
        way back.)
        """
        async with self._database.transaction() as connection:
            ended = await self._store.end(user_id, [session_id]) == 1
            if ended:
                acts.session_ended(connection, user_id, session_id, why, self._now())
        return ended

    async def _user_of(self, record: SessionRecord) -> User | None:
        """The session's user, when they are active and nothing has ended their sessions."""
        try:
            async with self._database.connection() as connection:
                user = await users.get(connection, UUID(record.user_id))
        except NotFoundError:
            return None
        return user if user.is_active and granted_under(record, user) else None

    def _may_repeat(self, generation: int, record: SessionRecord, client: Client) -> bool:
        return (
            generation == record.generation - 1
            and self._now_ms() - record.exchanged_at_ms <= self._grace_ms
            and record.exchanged_by == _fingerprint(client)
        )

    def _exchanged(self, record: SessionRecord, generation: int, client: Client) -> SessionRecord:
        exchanged = _copy(record)
        exchanged.generation = generation
        exchanged.exchanged_at_ms = exchanged.last_seen_at_ms = self._now_ms()
        exchanged.exchanged_by = _fingerprint(client)
        exchanged.user_agent, exchanged.address = client.user_agent, client.address
        return exchanged

    def _tokens(self, user: User, record: SessionRecord) -> Tokens:
        access_token = self._access_tokens.issue(record.user_id, record.id, user.roles)
        refresh_token, left = self._refresh_tokens.current(record), self._store.seconds_left(record)
        return Tokens(access_token, self._access_tokens.lifetime, refresh_token, left)

    def _now_ms(self) -> int:
        return int(self._now().timestamp() * 1000)


def granted_under(record: SessionRecord, user: User) -> bool:
    """Whether nothing has ended the user's sessions since this one was granted."""
    return user.credential_version in (record.credential_version, record.next_credential_version)


def _fingerprint(client: Client) -> bytes:
    """Which client this is; ADR 0013 says what that is good for.

    A browser is recognised by its device cookie, wherever it is; any other client by its user agent and address.
    """
    known_by = ("device", client.device_token) if client.device_token else (client.user_agent, network(client.address))
    return hashlib.sha256("\0".join(known_by).encode()).digest()[:16]


def _copy(record: SessionRecord) -> SessionRecord:
    copied = SessionRecord()
    copied.CopyFrom(record)
    return copied
