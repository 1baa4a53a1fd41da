"""Slows guessing at passwords, without letting strangers lock an owner out.

Guesses are counted in two places:

    throttle:{<account>}:<origin>   at one account from one origin: an address, a known device, or a session. After five
                                    wrong ones each has to wait, a second at first and twice as long each time, five
                                    minutes at most. A success forgets them.
    throttle:{<account>}            at one account from anywhere: a bucket of fifty that empties by one a minute. Known
                                    devices and the addresses of live sessions are not held up by it.

What one address can do fills less than half of the second, so nobody locks others out alone. Only a wrong password
counts. Until an attempt is settled it holds a place, so that a burst of simultaneous ones is no way around; when its
process dies, the place is free again after a few seconds. Unknown accounts are counted alike, or the difference would
tell them apart. Every key is gone within the hour.
"""

from __future__ import annotations

from dataclasses import dataclass

from chassis.errors import ServiceError
from chassis.valkey import PipelinedClient, Script

from user.repository.fail_closed import fail_closed

FREE_ATTEMPTS = 5
MAX_DELAY_SECONDS = 300
ACCOUNT_ATTEMPTS = 50
ACCOUNT_SECONDS_PER_ATTEMPT = 60
# Longer than any attempt takes, which is the deadline of a login.
_HOLD_MS = 10_000
_FORGET_SECONDS = 900
_FORGET_DELAYED_SECONDS = 3600

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
# Returns {wait for the origin, wait for the account} in milliseconds; both 0 when the attempt may be made.
_BEGIN: Script[tuple[int, int]] = Script(
    _NOW
    + """
local free, hold, most, leak = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local f = redis.call('HMGET', KEYS[1], 'wrong', 'open_at', 'held', 'held_until')
local wrong, open_at, held = tonumber(f[1] or 0), tonumber(f[2] or 0), tonumber(f[3] or 0)
if now >= tonumber(f[4] or 0) then held = 0 end
if now < open_at then return {open_at - now, 0} end
if held > 0 and wrong + held >= free then return {1000, 0} end
if KEYS[2] then
  local a = redis.call('HMGET', KEYS[2], 'level', 'at')
  local level = math.max(0, tonumber(a[1] or 0) - (now - tonumber(a[2] or now)) / leak)
  if level + 1 > most then return {0, math.ceil((level + 1 - most) * leak)} end
  redis.call('HSET', KEYS[2], 'level', string.format('%.6f', level + 1), 'at', string.format('%.0f', now))
  redis.call('PEXPIRE', KEYS[2], math.ceil((level + 1) * leak))
end
redis.call('HSET', KEYS[1], 'held', held + 1, 'held_until', string.format('%.0f', now + hold))
if redis.call('TTL', KEYS[1]) < ARGV[5] + 0 then redis.call('EXPIRE', KEYS[1], ARGV[5]) end
return {0, 0}
"""
)
_WRONG: Script[None] = Script(
    _NOW
    + """
local free = tonumber(ARGV[1])
local held = tonumber(redis.call('HGET', KEYS[1], 'held') or 0)
if held > 0 then redis.call('HINCRBY', KEYS[1], 'held', -1) end
local wrong = redis.call('HINCRBY', KEYS[1], 'wrong', 1)
local forget = ARGV[3]
if wrong >= free then
  local delay = math.min(1000 * 2 ^ math.min(wrong - free, 30), ARGV[2] * 1000)
  redis.call('HSET', KEYS[1], 'open_at', string.format('%.0f', now + delay))
  forget = ARGV[4]
end
redis.call('EXPIRE', KEYS[1], forget)
return 1
"""
)
_RELEASE: Script[None] = Script("""
if ARGV[1] == 'right' then
  redis.call('DEL', KEYS[1])
elseif tonumber(redis.call('HGET', KEYS[1], 'held') or 0) > 0 then
  redis.call('HINCRBY', KEYS[1], 'held', -1)
end
if KEYS[2] and tonumber(redis.call('HGET', KEYS[2], 'level') or 0) >= 1 then
  redis.call('HINCRBYFLOAT', KEYS[2], 'level', -1)
end
return 1
""")


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt under way."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """An attempt that has to wait.

    Args:
        seconds: how long.
        by_account: whether all guesses at the account together are the reason, and not this origin's.
    """

    seconds: float
    by_account: bool


class LoginThrottle:
    """The counters.

    Every method raises ServiceError UNAVAILABLE when Valkey cannot be reached.
    """

    def __init__(self, client: PipelinedClient) -> None:
        self._client = client

    async def begin(self, account: str, origin: str, *, counts_for_account: bool) -> Attempt | Refused:
        """Take a place for an attempt, to be settled by `wrong`, `right` or `came_to_nothing`.

        Args:
            account: names the account, as a hash.
            origin: from where, as a hash.
            counts_for_account: whether all guesses at the account together may hold it up.
        """
        keys = [f"throttle:{{{account}}}:{origin}"]
        if counts_for_account:
            keys.append(f"throttle:{{{account}}}")
        leak_ms = ACCOUNT_SECONDS_PER_ATTEMPT * 1000
        arguments = [FREE_ATTEMPTS, _HOLD_MS, ACCOUNT_ATTEMPTS, leak_ms, _FORGET_SECONDS]
        with fail_closed():
            own, of_account = await self._client.evaluate(_BEGIN, keys, arguments)
        if own or of_account:
            return Refused(max(own, of_account) / 1000, by_account=of_account > 0)
        return Attempt(tuple(keys))

    async def wrong(self, attempt: Attempt) -> None:
        """The password was wrong: it counts."""
        arguments = [FREE_ATTEMPTS, MAX_DELAY_SECONDS, _FORGET_SECONDS, _FORGET_DELAYED_SECONDS]
        with fail_closed():
            await self._client.evaluate(_WRONG, attempt.keys[:1], arguments)

    async def right(self, attempt: Attempt) -> None:
        """The password was right: what this origin did before is forgotten."""
        with fail_closed():
            await self._client.evaluate(_RELEASE, attempt.keys, ["right"])

    async def came_to_nothing(self, attempt: Attempt) -> None:
        """Nobody knows whether it was right: nothing counts."""
        with fail_closed():
            await self._client.evaluate(_RELEASE, attempt.keys, ["nothing"])


def too_many(refused: Refused) -> ServiceError:
    """What the caller is told."""
    return ServiceError("TOO_MANY_ATTEMPTS", retry_after=refused.seconds)
