"""A versioned cache in Valkey: what it answers is never older than what a writer has committed.

A record has a version that every change raises. A writer, before it commits version N, calls `raise_floor(N)`:
from then on no copy older than N is answered or stored. A reader that misses loads from the database and offers its
copy with the version it read; the copy is kept only when it is not below the floor. So a reader that raced with
the writer cannot put the old state back, and the writer's next read is its own write (ADR 0005).

An entry is `<version>:<payload>`; a bare floor has an empty payload.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import structlog
from contracts.common.v1 import options_pb2
from google.protobuf.message import Message

from chassis.errors import ServiceError
from chassis.metrics.families import Reading
from chassis.valkey import PipelinedClient, Script, ValkeyError

# How long a floor holds without a fill: longer than any transaction may last (the deadline of a request).
FLOOR_SECONDS = 60

_READS = Reading("backend_cache_reads_total", "Reads of the cache, by records and by what was found", "cache", "result")
_FLOORS = Reading("backend_cache_floors_raised_total", "Records of which older copies were forbidden", "cache")

_log = structlog.get_logger(__name__)

_STORE: Script[None] = Script("""
local stored = redis.call('GET', KEYS[1])
if stored then
  local version = tonumber(string.match(stored, '^(%d+):'))
  if version and version > tonumber(ARGV[1]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2], 'PX', ARGV[3])
return 1
""")

_RAISE: Script[None] = Script("""
for i, key in ipairs(KEYS) do
  local stored = redis.call('GET', key)
  local version = stored and tonumber(string.match(stored, '^(%d+):')) or 0
  if version < tonumber(ARGV[i]) then redis.call('SET', key, ARGV[i] .. ':', 'EX', ARGV[#KEYS + 1]) end
end
return 1
""")


class VersionedCache:
    """One namespace of records.

    Args:
        client: of the Valkey server that all replicas share.
        prefix: what the keys start with, for example `order:`.
        ttl: seconds after which an unused copy is dropped.
    """

    def __init__(self, client: PipelinedClient, prefix: str, ttl: float) -> None:
        self._client = client
        self._prefix = prefix
        self._ttl_ms = int(ttl * 1000)
        self._reads = {"hit": 0, "miss": 0, "failed": 0}
        self._floors = 0
        name = prefix.rstrip(":")
        for result in self._reads:
            _READS.read(partial(self._reads.__getitem__, result), name, result)
        _FLOORS.read(lambda: self._floors, name)

    async def get(self, record_id: str) -> bytes | None:
        """The cached payload, or None: on a miss, below a floor, and when Valkey is down."""
        try:
            found = payload(await self._client.get(self._prefix + record_id))
        except ValkeyError as error:
            self._reads["failed"] += 1
            _log.warning("cache read failed", prefix=self._prefix, error=str(error))
            return None
        self._reads["miss" if found is None else "hit"] += 1
        return found

    async def offer(self, record_id: str, version: int, value: bytes) -> None:
        """Keep `value` unless a newer version is known. Failure costs the next reader a miss and nothing else."""
        try:
            await self._client.evaluate(_STORE, [self._prefix + record_id], [version, value, self._ttl_ms])
        except ValkeyError as error:
            _log.warning("cache fill failed", prefix=self._prefix, error=str(error))

    async def raise_floor(self, versions: Mapping[str, int]) -> None:
        """Forbid copies older than these versions; call before the commit that makes them.

        Raises:
            ServiceError: UNAVAILABLE, when Valkey cannot be told: committing would leave a stale copy readable.
        """
        if not versions:
            return
        keys = [self._prefix + record_id for record_id in versions]
        self._floors += len(keys)
        try:
            await self._client.evaluate(_RAISE, keys, [*versions.values(), FLOOR_SECONDS])
        except ValkeyError as error:
            raise ServiceError("UNAVAILABLE") from error


def stored_under(message: type[Message]) -> str:
    """What the keys of a message's records start with: the contract says so, to whoever writes and whoever reads them.

    Raises:
        ValueError: the contract says nothing.
    """
    prefix: str = message.DESCRIPTOR.GetOptions().Extensions[options_pb2.stored_under]
    if not prefix:
        raise ValueError(f"{message.DESCRIPTOR.full_name} has no option stored_under")
    return prefix


def payload(entry: bytes | None) -> bytes | None:
    """The payload of a raw entry, or None for a miss or a bare floor."""
    if entry is None:
        return None
    return entry[entry.index(b":") + 1 :] or None
