"""The open connections of an edge: each holds a lease, and one address may hold only a part of what others leave free.

    limit:leases:<edge>             hash: number of a slot (a twentieth of the window) -> leases given in it, of all addresses
    limit:leases:<edge>:<address>   the same, of one address

A lease says in which slot it was given, and is taken out of that slot when its connection ends. If the news of that end
is lost, the lease ends together with its slot: the window is longer than any connection lives.

An address gets another lease as long as it holds fewer than a sixteenth of the leases that are free; its first lease it
gets as long as there is one. Of 4,096, the first address that takes all it can gets 240. After five such addresses three
quarters are left, after twenty a third, and after a hundred still a few, so that an address that has none gets one.
"""

from __future__ import annotations

from chassis.valkey import PipelinedClient, Script

_SLOTS = 20
# One address may hold this part of what is free: a sixteenth.
_PART = 16
_TAKE: Script[int | None] = Script("""
local time = redis.call('TIME')
local length = tonumber(ARGV[2]) / ARGV[3]
local slot = math.floor((time[1] * 1000 + math.floor(time[2] / 1000)) / length)
local function held(key)
  local stored, sum = redis.call('HGETALL', key), 0
  for i = 1, #stored, 2 do
    if tonumber(stored[i]) < slot - ARGV[3] then
      redis.call('HDEL', key, stored[i])
    else
      sum = sum + stored[i + 1]
    end
  end
  return sum
end
local free = ARGV[1] - held(KEYS[1])
if free <= 0 or held(KEYS[2]) >= math.max(1, math.floor(free / ARGV[4])) then return false end
for _, key in ipairs(KEYS) do
  redis.call('HINCRBY', key, slot, 1)
  redis.call('PEXPIRE', key, math.ceil(ARGV[2] + 2 * length))
end
return slot
""")
_GIVE_BACK: Script[None] = Script("""
for _, key in ipairs(KEYS) do
  local left = redis.call('HINCRBY', key, ARGV[1], -1)
  if left <= 0 then redis.call('HDEL', key, ARGV[1]) end
end
""")


class Leases:
    """The leases of all edges; `seconds` is the window, longer than any connection lives."""

    def __init__(self, client: PipelinedClient, seconds: int) -> None:
        self._client = client
        self._seconds = seconds

    async def take(self, edge: str, address: str, connections: int) -> str | None:
        """Take a lease for one more connection from an address; None when the address may have no more.

        Args:
            edge: which start of which edge asks.
            address: whose connection it is.
            connections: how many connections the edge may have in all.

        Raises:
            chassis.valkey.ValkeyError: Valkey did not answer.
        """
        arguments = [connections, self._seconds * 1000, _SLOTS, _PART]
        slot = await self._client.evaluate(_TAKE, _keys(edge, address), arguments)
        return None if slot is None else f"{slot} {edge} {address}"

    async def give_back(self, lease: str) -> None:
        """Give a lease back, because its connection has ended.

        Raises:
            chassis.valkey.ValkeyError: Valkey did not answer.
            ValueError: no lease of ours.
        """
        slot, edge, address = lease.split(" ")
        await self._client.evaluate(_GIVE_BACK, _keys(edge, address), [int(slot)])


def _keys(edge: str, address: str) -> list[str]:
    return [f"limit:leases:{edge}", f"limit:leases:{edge}:{address}"]
