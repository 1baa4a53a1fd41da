"""Slows guessing at one account's password, from wherever it comes, without ever locking its owner out for good.

An attempt is counted before the password is looked at, so that a burst of simultaneous attempts is no way around;
a success forgets them all. After five failures every further attempt has to wait, one second at first and twice as
long each time, five minutes at most. Unknown addresses are counted alike, or the difference would tell them apart.
"""

from __future__ import annotations

import hashlib

from chassis.errors import ServiceError
from redis.asyncio import Redis
from redis.exceptions import RedisError

FREE_ATTEMPTS = 5
MAX_DELAY_SECONDS = 300
_FORGET_AFTER_SECONDS = 24 * 3600

_BEGIN = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local open_at = tonumber(redis.call('HGET', KEYS[1], 'open_at') or 0)
if now < open_at then return open_at - now end
local attempts = redis.call('HINCRBY', KEYS[1], 'attempts', 1)
if attempts >= tonumber(ARGV[1]) then
  local delay = math.min(1000 * 2 ^ (attempts - ARGV[1]), ARGV[2] * 1000)
  redis.call('HSET', KEYS[1], 'open_at', string.format('%.0f', now + delay))
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 0
"""


class LoginThrottle:
    """One counter for each account."""

    def __init__(self, valkey: Redis) -> None:
        self._valkey = valkey
        self._begin = valkey.register_script(_BEGIN)

    async def begin(self, account: str) -> None:
        """Count an attempt.

        Args:
            account: what was typed as the email address, or an id that names the account.

        Raises:
            ServiceError: TOO_MANY_ATTEMPTS while it has to wait, UNAVAILABLE when Valkey cannot be reached.
        """
        try:
            args = [FREE_ATTEMPTS, MAX_DELAY_SECONDS, _FORGET_AFTER_SECONDS]
            wait_ms: int = await self._begin(keys=[_key(account)], args=args)
        except RedisError as error:
            raise ServiceError("UNAVAILABLE") from error
        if wait_ms:
            raise ServiceError("TOO_MANY_ATTEMPTS", retry_after=wait_ms / 1000)

    async def succeeded(self, account: str) -> None:
        """Forget the failures."""
        try:
            await self._valkey.delete(_key(account))
        except RedisError as error:
            raise ServiceError("UNAVAILABLE") from error


def _key(account: str) -> str:
    return f"bff:login:{hashlib.sha256(account.strip().lower().encode()).hexdigest()}"
