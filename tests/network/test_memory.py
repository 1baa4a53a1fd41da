"""Both Valkey servers are filled for real: copies make room for each other, and what is full keeps on being read."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from chassis.cache import VersionedCache
from chassis.valkey import PipelinedClient
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from contracts.bff.v1.operations import OPERATIONS
from devstack.options import Options
from inside import paused
from mesh.topology import CACHE
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError
from user.settings import Settings

from conftest import People, Platform, new_key, order_of
from devstack import services

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


async def _names(client: Redis) -> set[bytes]:
    return {name async for name in client.scan_iter(count=1000)}


async def _kept_since(client: Redis, before: set[bytes]) -> int:
    """Bytes of what has come since; all of it goes by itself."""
    new = await _names(client) - before
    assert all([await client.ttl(name) != -1 for name in new])
    return sum([int(await client.memory_usage(name) or 0) for name in new])


async def test_what_one_address_can_keep_is_far_below_the_state_servers_memory(people: People, stack: Platform) -> None:
    """ADR 0015: with accounts without number, the largest records, and every limit used up for weeks."""
    times, settings = 6, Settings.model_fields
    limits = {operation.id: operation.rate_limit for operation in OPERATIONS}
    hourly = limits["login"].requests * 3600 // limits["login"].seconds
    people.http.headers["user-agent"] = "x" * 400
    async with stack.valkey() as state:
        before = await _names(state)
        for _ in range(times):
            _, login = await people.newcomer()
            body = {"email": login.email, "password": login.password}
            assert (await people.http.post("/v1/auth/login", json=body)).status_code == 200
        # Both logins of each.
        a_login = await _kept_since(state, before) / times / 2
        before = await _names(state)
        for _ in range(times):
            body = {"email": f"{uuid.uuid4()}@example.com", "password": "wrong"}
            assert (await people.http.post("/v1/auth/login", json=body)).status_code == 401
        a_guess = await _kept_since(state, before) / times
    assert a_login < 1_200
    assert a_guess < 1_000
    kept = settings["sessions_a_day"].default * settings["session_idle_days"].default * a_login
    # Those that live an hour, each renewed in time; and what guesses leave for as long.
    kept += (hourly + limits["refreshTokens"].requests * 60) * a_login + hourly * a_guess
    assert kept < Options().valkey_memory_mib * 2**20 / 10


async def test_what_one_customer_makes_the_cache_keep_makes_room_for_others(people: People, stack: Platform) -> None:
    """The largest orders: each is one copy, which its next version replaces, and a small answer to its key."""
    client, _ = await people.newcomer()
    admin = await people.role("admin")
    price = models.Price(amount_minor=1000, currency="EUR")
    products = [
        (
            await admin.create_product(
                models.CreateProductRequest(
                    sku=f"M-{i}-{uuid.uuid4().hex[:12].upper()}", name="x" * 200, price=price, initial_stock=9
                )
            )
        ).data
        for i in range(50)
    ]
    async with stack.valkey(server=CACHE) as cache:
        before = await _names(cache)
        for _ in range(3):
            order = await people.order(client, *((product, 1) for product in products))
            assert (await client.get_order(order.id)).data.total.amount_minor == 50_000
        an_order = await _kept_since(cache, before) / 3
        assert (await cache.config_get("maxmemory-policy"))["maxmemory-policy"] == "allkeys-lru"
    assert an_order < 16_000


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
    async with stack.valkey(server=CACHE) as cache:
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
        async with stack.valkey(server=CACHE) as cache:
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
    with paused(stack.pid(CACHE)):
        assert (await client.get_order(order.id)).data == order
        answer = await people.http.get(f"{stack.status['endpoints']['order_ops']}/healthz/ready")
        assert (answer.status_code, set(answer.json())) == (200, {"ready", "valkey-cache"})
