"""The Valkey client every service uses: bounded, with short timeouts, no hidden retries."""

from __future__ import annotations

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

# A session check is on every request's path: better a clear failure soon than a queue.
_SOCKET_SECONDS = 1.0


def connect(url: str, *, max_connections: int) -> Redis:
    """A client over a pool that makes callers wait (at most a second) when all its connections are in use."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=_SOCKET_SECONDS,
        socket_timeout=_SOCKET_SECONDS,
        socket_connect_timeout=_SOCKET_SECONDS,
        # One retry on a fresh connection: a pooled one may have died since its last use.
        retry=Retry(NoBackoff(), 1),
    )
    return Redis(connection_pool=pool)
