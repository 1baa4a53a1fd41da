"""What one hot read (an MGET of two keys) costs with each Valkey client, in CPU time of its process, interleaved (ADR 0006).

Starts a Valkey of its own.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import coredis
import uvloop
from chassis.valkey import PipelinedClient
from devstack.valkey import BINARY
from glide import GlideClient, GlideClientConfiguration, NodeAddress
from redis.asyncio import BlockingConnectionPool, Redis
from valkey_clients import AT_ONCE, cost

_ROUNDS = 3
Read = Callable[[], Awaitable[object]]


async def _clients(socket: Path, stack: AsyncExitStack) -> dict[str, Read]:
    keys = ["bench:a", "bench:b"]
    pipelined = PipelinedClient(f"unix://{socket}?db=0")
    stack.push_async_callback(pipelined.close)
    pool = BlockingConnectionPool.from_url(f"unix://{socket}", max_connections=AT_ONCE, driver_info=None)
    redis = await stack.enter_async_context(Redis.from_pool(pool))
    address = NodeAddress(unix_socket_path=str(socket))
    glide = await GlideClient.create(GlideClientConfiguration([address]))
    stack.push_async_callback(glide.close)
    rival = await stack.enter_async_context(coredis.Redis(unix_socket_path=str(socket), max_connections=AT_ONCE))
    await redis.set("bench:a", b"x" * 300)
    return {
        "PipelinedClient": lambda: pipelined.mget(*keys),
        "redis-py": lambda: redis.mget(keys),
        "valkey-glide": lambda: glide.mget(keys),
        "coredis": lambda: rival.mget(keys),
    }


async def measure(socket: Path) -> dict[str, float]:
    """Microseconds of CPU for a read, by client."""
    async with AsyncExitStack() as stack:
        clients = await _clients(socket, stack)
        rounds = [{name: await cost(read) for name, read in clients.items()} for _ in range(_ROUNDS)]
        return {name: median(one[name] for one in rounds) for name in clients}


def main() -> None:
    """Print a line for each client."""
    with tempfile.TemporaryDirectory() as scratch:
        socket = Path(scratch) / "valkey.sock"
        command = [str(BINARY), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", scratch]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while not socket.exists():
                time.sleep(0.05)
            for name, microseconds in uvloop.run(measure(socket)).items():
                print(f"{name:<16}{microseconds:6.1f} us")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
