"""What one hot read costs with redis-py's pool and with the pipelined client, in CPU time, in one run.

`peers/valkey_peers.py` has the clients that are not installed here.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop
from chassis.valkey import PipelinedClient
from redis.asyncio import BlockingConnectionPool, Redis

READS = 20_000
AT_ONCE = 16


async def cost(read: Callable[[], Awaitable[object]]) -> float:
    """CPU time of this process for one of `READS`, in microseconds."""

    async def reader() -> None:
        for _ in range(READS // AT_ONCE):
            await read()

    await reader()
    started = time.process_time()
    await asyncio.gather(*(reader() for _ in range(AT_ONCE)))
    return (time.process_time() - started) / READS * 1e6


async def measure(url: str) -> dict[str, float]:
    """Microseconds of CPU for an MGET of two keys, by client."""
    pool = BlockingConnectionPool.from_url(url, max_connections=AT_ONCE, driver_info=None)
    client, pipelined = Redis.from_pool(pool), PipelinedClient(url)
    await client.set("bench:a", b"x" * 300)
    pooled = await cost(lambda: client.mget("bench:a", "bench:b"))
    lean = await cost(lambda: pipelined.mget("bench:a", "bench:b"))
    await client.delete("bench:a")
    await pipelined.close()
    await client.aclose()
    return {"redis-py": pooled, "PipelinedClient": lean}


if __name__ == "__main__":
    for name, microseconds in uvloop.run(measure(sys.argv[1])).items():
        print(f"{name:<10} {microseconds:5.1f} us")
