"""Both Valkey servers are filled for real: copies make room for each other, and what is full keeps on being read."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from chassis.cache import VersionedCache
from chassis.valkey import PipelinedClient
from contracts.http.client import ApiError
from mesh import paused
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from conftest import People, Platform, new_key, order_of
from devstack import services, valkey

_CHUNK = b"x" * 4096
_FLOORS = 200
_LEEWAY = 4 * 2**20


async def _write(client: Redis, prefix: str, chunks: int) -> None:
    """Some memory of a server, to be found by its prefix."""
    for start in range(0, chunks, 500):
        async with client.pipeline(transaction=False) as pipeline:
            for number in range(start, min(start + 500, chunks)):
                pipeline.set(f"{prefix}{number}", _CHUNK, ex=300)
            await pipeline.execute()


async def _memory_mib(client: Redis) -> int:
    return int((await client.info("memory"))["maxmemory"]) // 2**20


@asynccontextmanager
async def _full(client: Redis) -> AsyncIterator[None]:
    """The state server with no byte left, until the end of the block."""
    allowed = (await client.info("memory"))["maxmemory"]
    try:
        with pytest.raises(OutOfMemoryError):
            await _write(client, "filler:", 300 * await _memory_mib(client))
        # A smaller value would still find room.
        with pytest.raises(OutOfMemoryError):
            for number in range(100_000):
                await client.set(f"filler:small:{number}", "x", ex=300)
        # Buffers of connections are counted, too: one that somebody closes now must not make room for another value.
        await client.config_set("maxmemory", (await client.info("memory"))["used_memory"] - _LEEWAY)
        yield
    finally:
        await client.config_set("maxmemory", allowed)
        async for name in client.scan_iter("filler:*", count=1000):
            await client.unlink(name)


async def test_a_full_state_server_is_said_and_what_is_there_goes_on_being_read(
    people: People, stack: Platform
) -> None:
    client, login = await people.newcomer()
    product = await people.product()
    order = await people.order(client, (product, 1))
    ready = [f"{stack.status['endpoints'][name]}/healthz/ready" for name in ("user_ops", "limiter_ops")]
    async with stack.valkey() as state:
        async with _full(state):
            for url in ready:
                answer = await people.http.get(url)
                assert (answer.status_code, answer.json()) == (200, {"ready": True, "valkey": "out of memory"})
                metrics = (await people.http.get(url.replace("/healthz/ready", "/metrics"))).text
                assert 'backend_degraded{check="valkey"} 1' in metrics
            # Who is logged in reads, and orders: sessions are read, copies and keys are the other server's.
            assert (await client.get_order(order.id)).data == order
            assert (await client.create_order(order_of((product, 1)), idempotency_key=new_key())).status == 201
            with pytest.raises(ApiError) as caught:
                await client.login(login)
            assert caught.value.status == 503
            assert "retry-after" in caught.value.headers
            # Nothing was pushed out to make room.
            assert int((await state.info("stats"))["evicted_keys"]) == 0
        for url in ready:
            assert (await people.http.get(url)).json() == {"ready": True}
    assert (await client.login(login)).status == 200


async def test_a_full_cache_pushes_out_copies_and_nobody_notices(people: People, stack: Platform) -> None:
    client, login = await people.newcomer()
    product, key = await people.product(), new_key()
    order = (await client.create_order(order_of((product, 1)), idempotency_key=key)).data
    async with stack.valkey(server=valkey.CACHE) as cache:
        await _write(cache, "order:order:filler-", 3 * 256 * await _memory_mib(cache))
        assert int((await cache.info("stats"))["evicted_keys"]) > 0
        assert (await client.get_order(order.id)).data == order
        again = await client.create_order(order_of((product, 1)), idempotency_key=key)
        assert (again.headers["idempotency-replayed"], again.data.id) == ("true", order.id)
        assert (await client.login(login)).status == 200
        answer = await people.http.get(f"{stack.status['endpoints']['order_ops']}/healthz/ready")
        assert (answer.status_code, answer.json()) == (200, {"ready": True})


async def test_a_floor_outlives_the_copies_that_it_forbids(stack: Platform) -> None:
    """ADR 0005: a stale copy must not come back because what forbids it was evicted first."""
    client = PipelinedClient(services.valkey_url(stack.layout, stack.secrets, "order"))
    floors = VersionedCache(client, "order:order:", 300)
    ids = [str(uuid.uuid4()) for _ in range(_FLOORS)]
    try:
        async with stack.valkey(server=valkey.CACHE) as cache:
            chunks = 256 * await _memory_mib(cache)
            await _write(cache, "order:order:old-", chunks)
            # The server's clock for what was used last has seconds.
            await asyncio.sleep(2)
            await floors.raise_floor(dict.fromkeys(ids, 2))
            evicted = int((await cache.info("stats"))["evicted_keys"])
            await _write(cache, "order:order:new-", chunks // 2)
            assert int((await cache.info("stats"))["evicted_keys"]) > evicted + chunks // 4
            for record in ids:
                await floors.offer(record, 1, b"stale")
            assert await asyncio.gather(*map(floors.get, ids)) == [None] * _FLOORS
    finally:
        await client.close()


async def test_without_its_cache_the_order_service_says_so_and_reads_go_on(people: People, stack: Platform) -> None:
    client, _ = await people.newcomer()
    order = await people.order(client, (await people.product(), 1))
    with paused(stack.pid(valkey.CACHE)):
        assert (await client.get_order(order.id)).data == order
        answer = await people.http.get(f"{stack.status['endpoints']['order_ops']}/healthz/ready")
        assert (answer.status_code, set(answer.json())) == (200, {"ready", "valkey-cache"})
