"""What one hot read costs with redis-py's pool and with the pipelined client, in CPU time, in one run."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop
from chassis.valkey import PipelinedClient
from redis.asyncio import BlockingConnectionPool, Redis

_READS = 20_000
_AT_ONCE = 16


async def _cost(read: Callable[[], Awaitable[object]]) -> float:
    async def reader() -> None:
        for _ in range(_READS // _AT_ONCE):
            await read()

    await reader()
    started = time.process_time()
    await asyncio.gather(*(reader() for _ in range(_AT_ONCE)))
    return (time.process_time() - started) / _READS * 1e6


async def measure(url: str) -> dict[str, float]:
    """Microseconds of CPU for an MGET of two keys, by client."""
    pool = BlockingConnectionPool.from_url(url, max_connections=_AT_ONCE, driver_info=None)
    client, pipelined = Redis.from_pool(pool), PipelinedClient(url)
    await client.set("bench:a", b"x" * 300)
    pooled = await _cost(lambda: client.mget("bench:a", "bench:b"))
    lean = await _cost(lambda: pipelined.mget("bench:a", "bench:b"))
    await client.delete("bench:a")
    await pipelined.close()
    await client.aclose()
    return {"redis-py": pooled, "PipelinedClient": lean}


if __name__ == "__main__":
    for name, microseconds in uvloop.run(measure(sys.argv[1])).items():
        print(f"{name:<10} {microseconds:5.1f} us")
