"""Session records in Valkey.

    session:<id>        a `user.v1.SessionRecord`; gone means the session has ended. The BFF reads it on every request
    sessions:<user>     the user's session ids by creation time
    sessions:at:<network>   how many were begun from there within a day of the first one

A record is only ever replaced by its reader, and only when it is still what was read: whoever was faster wins, and
nothing comes back that has ended meanwhile. What makes one valid besides being there is the user's credential version
(`user.service.sessions`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from chassis.cache import stored_under
from chassis.valkey import PipelinedClient, Script
from contracts.user.v1.session_pb2 import SessionRecord
from google.protobuf.message import DecodeError

from user.repository.fail_closed import fail_closed

# How many sessions a user may have; further ones end the oldest.
MAX_SESSIONS = 50

_DAY_SECONDS = 86_400
_RECORD = stored_under(SessionRecord)

_COUNT: Script[int] = Script("""
local begun = redis.call('HINCRBY', KEYS[1], 'begun', 1)
if begun == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return begun
""")
_START: Script[list[bytes]] = Script("""
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return redis.call('ZRANGE', KEYS[2], 0, -tonumber(ARGV[6]) - 1)
""")
_REPLACE: Script[int] = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] == '' then
  redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
""")
_END: Script[int] = Script("""
local ended = 0
for i = 2, #KEYS do
  ended = ended + redis.call('DEL', KEYS[i])
  redis.call('ZREM', KEYS[1], ARGV[i - 1])
end
return ended
""")
_IDS: Script[list[bytes]] = Script("return redis.call('ZREVRANGE', KEYS[1], 0, -1)")


@dataclass(frozen=True, slots=True)
class Stored:
    """A record, and the bytes it was read from."""

    record: SessionRecord
    raw: bytes


class SessionStore:
    """All sessions.

    Args:
        client: of the Valkey server that keeps what must not be lost.
        now: the clock, UTC.
        lifetime: how long a session may last at all.
        idle: how long it lasts without an exchange of its refresh token.

    Every method raises ServiceError UNAVAILABLE when Valkey cannot be reached.
    """

    def __init__(
        self, client: PipelinedClient, *, now: Callable[[], datetime], lifetime: timedelta, idle: timedelta
    ) -> None:
        self._client = client
        self._now = now
        self._lifetime = lifetime
        self._idle = idle

    def seconds_left(self, record: SessionRecord) -> int:
        """How long a session lasts from now on without an exchange of its refresh token."""
        return self._ttl_ms(record) // 1000

    async def begun_at(self, network: str) -> int:
        """Count one more session of a network; returns how many it has begun within a day."""
        with fail_closed():
            return await self._client.evaluate(_COUNT, [f"sessions:at:{network}"], [_DAY_SECONDS])

    async def start(self, record: SessionRecord) -> list[str]:
        """Keep a new session; the user's oldest end when there are too many: which those were."""
        keys = [_session_key(record.id), _index_key(record.user_id)]
        arguments: list[bytes | str | int] = [
            record.SerializeToString(),
            self._ttl_ms(record),
            record.created_at_ms,
            record.id,
            int(self._lifetime.total_seconds() * 1000),
            MAX_SESSIONS,
        ]
        with fail_closed():
            surplus = await self._client.evaluate(_START, keys, arguments)
        ids = [member.decode() for member in surplus]
        await self.end(record.user_id, ids)
        return ids

    async def find(self, session_id: str) -> Stored | None:
        """The session's record, or None when it has ended."""
        with fail_closed():
            raw = await self._client.get(_session_key(session_id))
        stored = None if raw is None else _stored(raw)
        return stored if stored is not None and self._left_ms(stored.record) > 0 else None

    async def replace(self, stored: Stored, record: SessionRecord, *, prolong: bool) -> bool:
        """Put `record` in the place of what was read; False when that is no longer there.

        Args:
            stored: what was read.
            record: what to keep instead.
            prolong: whether the session's idle time begins anew.
        """
        ttl: int | str = self._ttl_ms(record) if prolong else ""
        arguments = [stored.raw, record.SerializeToString(), ttl]
        with fail_closed():
            return await self._client.evaluate(_REPLACE, [_session_key(record.id)], arguments) == 1

    async def end(self, user_id: str, session_ids: list[str]) -> int:
        """End these sessions of a user; how many there were."""
        if not session_ids:
            return 0
        keys = [_index_key(user_id), *map(_session_key, session_ids)]
        with fail_closed():
            return await self._client.evaluate(_END, keys, session_ids)

    async def of_user(self, user_id: str) -> list[SessionRecord]:
        """What is kept of the user's sessions, newest first."""
        with fail_closed():
            members = await self._client.evaluate(_IDS, [_index_key(user_id)], [])
            ids = [member.decode() for member in members]
            raws = await self._client.mget(*map(_session_key, ids)) if ids else []
        found = [None if raw is None else _stored(raw) for raw in raws]
        await self.end(user_id, [i for i, stored in zip(ids, found, strict=True) if stored is None])
        return [stored.record for stored in found if stored is not None]

    def _ttl_ms(self, record: SessionRecord) -> int:
        idle_ms = record.idle_ms or int(self._idle.total_seconds() * 1000)
        return max(1, min(idle_ms, self._left_ms(record)))

    def _left_ms(self, record: SessionRecord) -> int:
        age = int(self._now().timestamp() * 1000) - record.created_at_ms
        return int(self._lifetime.total_seconds() * 1000) - age


def _stored(raw: bytes) -> Stored | None:
    try:
        return Stored(SessionRecord.FromString(raw), raw)
    except DecodeError:
        return None


def _session_key(session_id: str) -> str:
    return _RECORD + session_id


def _index_key(user_id: str) -> str:
    return f"sessions:{user_id}"
