"""`backend secrets rotate`, under load."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest
from chassis.private_files import write_private
from contract_runtime.http_client import ApiError
from devstack.rotation import refuses_password
from devstack.secrets import OF_SERVERS, Secrets, made_anew, write_password
from mesh.topology import CACHE, VALKEY_SERVERS
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from conftest import People, Platform, backend, new_key, order_of
from devstack import postgres, services, valkey


@asynccontextmanager
async def load(people: People) -> AsyncIterator[Counter[int]]:
    """Readers and writers of both databases and both Valkeys, one after the other without a pause; what they saw."""
    client, _ = await people.newcomer()
    # A user's fifty-first session ends the first.
    another, login = await people.newcomer()
    product = await people.product(stock=1_000_000)
    order = await people.order(client, (product, 1))
    seen: Counter[int] = Counter()
    stopping = asyncio.Event()

    async def again(call: Callable[[], Awaitable[object]]) -> None:
        while not stopping.is_set():
            try:
                await call()
                seen[200] += 1
            except ApiError as error:
                seen[error.status] += 1

    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: client.get_order(order.id),
        lambda: client.list_orders(limit=1),
        lambda: client.create_order(order_of((product, 1)), idempotency_key=new_key()),
        client.get_me,
        lambda: another.login(login),
    ]
    async with asyncio.TaskGroup() as clients:
        for call in calls:
            clients.create_task(again(call))
        yield seen
        stopping.set()


async def refused(stack: Platform, old: Secrets) -> list[str]:
    """By whom the old passwords are refused; all of them, one hopes."""
    found = []
    urls = [postgres.superuser_url(stack.layout, old, "postgres")]
    for url in urls + [service.url(stack.layout) for service in postgres.databases(old)]:
        try:
            await (await asyncpg.connect(url)).close()
        except asyncpg.InvalidPasswordError:
            found.append("postgres")
    for server in VALKEY_SERVERS:
        for user in valkey.users_of(server):
            url = services.valkey_url(stack.layout, old, user, server)
            client = Redis.from_url(url, driver_info=None, retry=Retry(NoBackoff(), 0))
            try:
                await client.ping()
            except RedisError as error:
                assert refuses_password(error)
                found.append(server)
            await client.aclose()
    return found


async def test_new_passwords_under_load_cost_nobody_an_error_and_the_old_ones_end(
    people: People, stack: Platform
) -> None:
    old, where = stack.secrets, ("--data-dir", str(stack.layout.data_dir))
    # Whoever got hold of one has a connection open.
    thief = await asyncpg.connect(postgres.databases(old)[1].url(stack.layout))
    async with load(people) as seen, stack.valkey("bff") as stolen:
        assert await stolen.get("session:x") is None
        done = await asyncio.to_thread(backend, "secrets", "rotate", "--wait", "4", *where)
        assert "2 connections that were opened with an old password have been ended" in done.stdout
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
            await thief.fetchval("SELECT 1")
    assert set(seen) == {200}
    new = stack.secrets
    assert all(new[name] != old[name] for name in OF_SERVERS)
    assert {**new.values, **{name: old[name] for name in OF_SERVERS}} == old.values
    everybody = {server: len(valkey.users_of(server)) for server in VALKEY_SERVERS}
    assert Counter(await refused(stack, old)) == {"postgres": 1 + len(postgres.databases(old)), **everybody}
    assert await refused(stack, new) == []
    shown = backend("secrets", "--data-dir", str(stack.layout.data_dir)).stdout
    assert "order-database" in shown
    assert not any(new[name] in shown for name in OF_SERVERS)


async def test_what_starts_after_a_rotation_has_the_new_password(people: People, stack: Platform) -> None:
    where = ("--data-dir", str(stack.layout.data_dir))
    for name in ("valkey", "postgres", "order"):
        assert f"{name} restarted" in (await asyncio.to_thread(backend, "restart", name, *where)).stdout
    client, _ = await people.newcomer()
    assert (await client.list_orders(limit=1)).status == 200


async def test_a_rotation_that_was_cut_off_is_finished_by_the_next(people: People, stack: Platform) -> None:
    """In its middle: the services have both passwords, one role and one server have the new one."""
    old = stack.secrets
    decided = made_anew(old)
    write_private(stack.layout.secrets / "rotation.json", decided.as_json())
    write_password(
        stack.layout.secrets,
        "order_database_password",
        decided["order_database_password"],
        old["order_database_password"],
    )
    server = await stack.database("postgres")
    await server.execute(f"ALTER ROLE postgres PASSWORD '{decided['postgres_password']}'")
    await server.execute(f"ALTER ROLE order_service PASSWORD '{decided['order_database_password']}'")
    await server.close()
    async with stack.valkey(server=CACHE) as cache:
        await cache.acl_setuser(
            "admin", enabled=True, reset_passwords=True, passwords=[f"+{decided.valkey_of('admin')}"]
        )
    await asyncio.to_thread(backend, "secrets", "rotate", "--data-dir", str(stack.layout.data_dir))
    assert stack.secrets == decided
    assert not (stack.layout.secrets / "rotation.json").exists()
    assert await refused(stack, decided) == []
    client, _ = await people.newcomer()
    assert (await client.list_orders(limit=1)).status == 200
