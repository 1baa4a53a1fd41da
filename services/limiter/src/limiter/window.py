"""Counts requests in a sliding window, in Valkey: each decision is one atomic call, each record small at any limit.

    limit:<name>     hash: number of a slot (a twentieth of the window) -> requests counted in it

All slots that overlap the last `window` are added up, and the oldest of them counts as a whole. So no window, wherever
it begins, holds more requests than the limit: there is no second burst after the edge of a window. In return the limit
is up to a twentieth stricter for a client that uses it up all the time. A request that is refused is not counted, so a
client that waits as long as it is told gets through.
"""

from __future__ import annotations

from dataclasses import dataclass

from chassis.valkey import PipelinedClient, Script

_SLOTS = 20
_COUNT: Script[list[int]] = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, window, slots = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local length = window / slots
local slot = math.floor(now / length)
local stored = redis.call('HGETALL', KEYS[1])
local used, counts, numbers = 0, {}, {}
for i = 1, #stored, 2 do
  local number, count = tonumber(stored[i]), tonumber(stored[i + 1])
  if number < slot - slots then
    redis.call('HDEL', KEYS[1], stored[i])
  else
    used = used + count
    counts[number] = count
    table.insert(numbers, number)
  end
end
local function ends(number) return math.ceil((number + slots + 1) * length) - now end
if used >= limit then
  table.sort(numbers)
  local wait = window
  for _, number in ipairs(numbers) do
    used = used - counts[number]
    wait = ends(number)
    if used < limit then break end
  end
  return {0, 0, wait}
end
redis.call('HINCRBY', KEYS[1], slot, 1)
redis.call('PEXPIRE', KEYS[1], math.ceil(window + 2 * length))
return {1, limit - used - 1, ends(slot)}
""")


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request may pass, and how many more may after it.

    `reset` is in seconds: until another request may pass when this one may not, else until the window is empty again.
    """

    allowed: bool
    remaining: int
    reset: float


class SlidingWindow:
    """Counts requests by name."""

    def __init__(self, client: PipelinedClient) -> None:
        self._client = client

    async def count(self, name: str, requests: int, seconds: float) -> Decision:
        """Count a request under `name`, of which `requests` are allowed in any `seconds`.

        Raises:
            chassis.valkey.ValkeyError: Valkey did not answer.
        """
        arguments = [requests, int(seconds * 1000), _SLOTS]
        reply = await self._client.evaluate(_COUNT, [f"limit:{name}"], arguments)
        allowed, remaining, milliseconds = reply
        return Decision(bool(allowed), remaining, milliseconds / 1000)
