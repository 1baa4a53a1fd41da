"""Sessions and refresh tokens in Valkey.

    bff:session:{<id>}            the session's record; gone means the session has ended, at once and on every replica
    bff:session:{<id>}:<hash>     a refresh token by its SHA-256: `live` or `spent`
    bff:sessions:<user>           the user's session ids by creation time
    bff:login:<hash>              failed logins of an account

A refresh token is 16 bytes of session id and 32 random bytes; it is stored as a hash only. Rotation is one script:
of any number of simultaneous uses exactly one gets the new pair, and the second use of a spent token ends the
session (reuse detection, RFC 9700 section 4.14.2).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from chassis.cache import payload
from chassis.errors import ServiceError
from chassis.valkey import PipelinedClient
from contracts.user.v1 import user_pb2
from redis.asyncio import Redis
from redis.exceptions import RedisError

_SECRET_BYTES = 32
# A session's record is rewritten for "last seen" at most this often.
_TOUCH_INTERVAL = timedelta(minutes=1)
# A user has no use for more; the oldest end first.
_MAX_SESSIONS = 50

_ROTATE = """
local state = redis.call('GET', KEYS[2])
if not state or redis.call('EXISTS', KEYS[1]) == 0 then return 'unknown' end
if state ~= 'live' then
  redis.call('DEL', KEYS[1])
  return 'reused'
end
redis.call('SET', KEYS[2], 'spent', 'KEEPTTL')
redis.call('SET', KEYS[3], 'live', 'PX', ARGV[2])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 'rotated'
"""


class Session(msgspec.Struct, frozen=True, array_like=True):
    """A session's record."""

    id: str
    user_id: str
    created_at: datetime
    last_seen_at: datetime
    user_agent: str
    address: str


@dataclass(frozen=True, slots=True)
class SessionCheck:
    """A live session and, where it is cached, its user's record."""

    session: Session
    user: user_pb2.User | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Session).decode


class _FailClosed:
    """Valkey away means nobody can be authenticated: 503, never a guess."""

    def __enter__(self) -> None:
        return

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, RedisError | OSError):
            raise ServiceError("UNAVAILABLE") from error


class SessionStore:
    """All sessions.

    Args:
        valkey, pipelined: the clients, for everything and for the check of every request.
        now: the clock, UTC.
        new_id: makes session ids.
        lifetime: how long a session may last at all.
        idle: how long it lasts without a refresh.

    Every method raises ServiceError UNAVAILABLE when Valkey cannot be reached.
    """

    def __init__(
        self,
        valkey: Redis,
        pipelined: PipelinedClient,
        *,
        now: Callable[[], datetime],
        new_id: Callable[[], UUID],
        lifetime: timedelta,
        idle: timedelta,
    ) -> None:
        self._valkey = valkey
        self._pipelined = pipelined
        self._now = now
        self._new_id = new_id
        self._lifetime = lifetime
        self._idle = idle
        self._rotate = valkey.register_script(_ROTATE)

    async def start(self, user_id: str, user_agent: str, address: str) -> tuple[Session, str]:
        """A new session and its first refresh token."""
        now = self._now()
        session_id = self._new_id()
        session = Session(str(session_id), user_id, now, now, user_agent[:300], address[:64])
        token, token_hash = _new_token(session_id)
        ttl = self._ttl_ms(session)
        index = _index_key(user_id)
        with _FailClosed():
            async with self._valkey.pipeline(transaction=True) as pipeline:
                pipeline.set(_session_key(session.id), _encode(session), px=ttl)
                pipeline.set(_token_key(session.id, token_hash), "live", px=ttl)
                pipeline.zadd(index, {session.id: now.timestamp()})
                pipeline.pexpire(index, int(self._lifetime.total_seconds() * 1000))
                pipeline.zrange(index, 0, -_MAX_SESSIONS - 1)
                *_, surplus = await pipeline.execute()
        for old in surplus:
            await self.revoke(user_id, old.decode())
        return session, token

    async def check(self, session_id: str, user_id: str) -> SessionCheck:
        """The live session of a request, and its user's record as the User service keeps it, in one round trip.

        Raises:
            ServiceError: UNAUTHENTICATED when the session has ended.
        """
        with _FailClosed():
            raw, user_entry = await self._pipelined.mget(_session_key(session_id), f"user:{user_id}")
        if raw is None:
            raise ServiceError("UNAUTHENTICATED")
        session = _decode(raw)
        if session.user_id != user_id:
            raise ServiceError("UNAUTHENTICATED")
        if self._now() - session.last_seen_at > _TOUCH_INTERVAL:
            await self._touch(session)
        record = payload(user_entry)
        return SessionCheck(session, None if record is None else user_pb2.User.FromString(record))

    async def rotate(self, refresh_token: str, user_agent: str, address: str) -> tuple[Session, str]:
        """Spend a refresh token; the session and its next token.

        Raises:
            ServiceError: INVALID_REFRESH_TOKEN when it is unknown, expired, or spent, which ends the session.
        """
        session_id, token_hash = _parse_token(refresh_token)
        with _FailClosed():
            raw: Any = await self._valkey.get(_session_key(session_id))
        if raw is None:
            raise ServiceError("INVALID_REFRESH_TOKEN")
        session = msgspec.structs.replace(
            _decode(raw), last_seen_at=self._now(), user_agent=user_agent[:300], address=address[:64]
        )
        token, next_hash = _new_token(UUID(session_id))
        ttl = self._ttl_ms(session)
        if ttl <= 0:
            raise ServiceError("INVALID_REFRESH_TOKEN")
        keys = [_session_key(session_id), _token_key(session_id, token_hash), _token_key(session_id, next_hash)]
        with _FailClosed():
            result: Any = await self._rotate(keys=keys, args=[_encode(session), ttl])
        if result != b"rotated":
            raise ServiceError("INVALID_REFRESH_TOKEN")
        return session, token

    async def list(self, user_id: str) -> list[Session]:
        """The user's live sessions, newest first."""
        index = _index_key(user_id)
        with _FailClosed():
            members: Any = await self._valkey.zrevrange(index, 0, -1)
            ids = [member.decode() for member in members]
            records: Any = await self._valkey.mget([_session_key(i) for i in ids]) if ids else []
            ended = [i for i, record in zip(ids, records, strict=True) if record is None]
            if ended:
                await self._valkey.zrem(index, *ended)
        return [_decode(record) for record in records if record is not None]

    async def revoke(self, user_id: str, session_id: str) -> bool:
        """End one session of a user; False when they have no such session."""
        with _FailClosed():
            if await self._valkey.zscore(_index_key(user_id), session_id) is None:
                return False
            async with self._valkey.pipeline(transaction=True) as pipeline:
                pipeline.delete(_session_key(session_id))
                pipeline.zrem(_index_key(user_id), session_id)
                deleted, _ = await pipeline.execute()
        return bool(deleted)

    async def revoke_all(self, user_id: str, keep: str = "") -> None:
        """End all sessions of a user but `keep`."""
        index = _index_key(user_id)
        with _FailClosed():
            members: Any = await self._valkey.zrange(index, 0, -1)
            ids = [member.decode() for member in members]
            if ending := [i for i in ids if i != keep]:
                async with self._valkey.pipeline(transaction=True) as pipeline:
                    pipeline.delete(*map(_session_key, ending))
                    pipeline.zrem(index, *ending)
                    await pipeline.execute()

    async def _touch(self, session: Session) -> None:
        seen = msgspec.structs.replace(session, last_seen_at=self._now())
        with _FailClosed():
            # Only while it is there: a session that ends in this moment must not come back.
            await self._valkey.set(_session_key(session.id), _encode(seen), xx=True, keepttl=True)

    def _ttl_ms(self, session: Session) -> int:
        left = min(self._idle, session.created_at + self._lifetime - self._now())
        return int(left.total_seconds() * 1000)


def _session_key(session_id: str) -> str:
    return f"bff:session:{{{session_id}}}"


def _token_key(session_id: str, token_hash: str) -> str:
    return f"bff:session:{{{session_id}}}:{token_hash}"


def _index_key(user_id: str) -> str:
    return f"bff:sessions:{user_id}"


def _new_token(session_id: UUID) -> tuple[str, str]:
    raw = session_id.bytes + secrets.token_bytes(_SECRET_BYTES)
    return base64.urlsafe_b64encode(raw).decode(), hashlib.sha256(raw).hexdigest()


def _parse_token(token: str) -> tuple[str, str]:
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 16 + _SECRET_BYTES:
        raise ServiceError("INVALID_REFRESH_TOKEN")
    return str(UUID(bytes=raw[:16])), hashlib.sha256(raw).hexdigest()
