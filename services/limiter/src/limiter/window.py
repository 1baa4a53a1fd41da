"""A sliding window counter in Valkey: one atomic call a decision.

    limit:<name>     hash: i (number of the current window), c (count in it), p (count in the one before)

The count of the last `window` is estimated as the current window's plus the share of the previous one that still
overlaps (Cloudflare, "How we built rate limiting capable of scaling to millions of domains", 2017). So a burst at a
window's end is not followed by another at the next one's start, and two counters do for any limit. What is refused
is not counted: a client that waits as told gets through.
"""

from __future__ import annotations

from dataclasses import dataclass

from redis.asyncio import Redis

_COUNT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local index = math.floor(now / window)
local into = now - index * window
local state = redis.call('HMGET', KEYS[1], 'i', 'c', 'p')
local current, previous = 0, 0
if tonumber(state[1]) == index then
  current, previous = tonumber(state[2]), tonumber(state[3])
elseif tonumber(state[1]) == index - 1 then
  previous = tonumber(state[2])
end
local used = current + previous * (window - into) / window
if used + 1 > limit then
  local wait
  if current + 1 <= limit then
    wait = window * (1 - (limit - 1 - current) / previous) - into
  else
    wait = window - into + window * (1 - (limit - 1) / current)
  end
  return {0, 0, math.max(1, math.ceil(wait))}
end
redis.call('HSET', KEYS[1], 'i', index, 'c', current + 1, 'p', previous)
redis.call('PEXPIRE', KEYS[1], 2 * window)
return {1, math.floor(limit - used - 1), window - into}
"""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the request may pass, how many more may, and in how many seconds that improves."""

    allowed: bool
    remaining: int
    reset: float


class SlidingWindow:
    """The counters."""

    def __init__(self, valkey: Redis) -> None:
        self._count = valkey.register_script(_COUNT)

    async def count(self, name: str, requests: int, seconds: int) -> Decision:
        """Count a request under `name`, of which `requests` are allowed in any `seconds`.

        Raises:
            redis.exceptions.RedisError: Valkey did not answer.
        """
        reply: list[int] = await self._count(keys=[f"limit:{name}"], args=[requests, seconds * 1000])
        allowed, remaining, milliseconds = reply
        return Decision(bool(allowed), remaining, milliseconds / 1000)
