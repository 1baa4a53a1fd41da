"""Sessions on the real Valkey, with a clock of the test's own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from bff.sessions import SessionStore
from chassis import valkey
from chassis.errors import ServiceError
from chassis.ids import uuid7
from chassis.valkey import PipelinedClient
from redis.asyncio import Redis

from conftest import Platform
from devstack import services


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[Redis]:
    made = valkey.connect(services.valkey_url(platform.layout, platform.secrets), max_connections=4)
    yield made
    await made.aclose()


@pytest.fixture
async def store(platform: Platform, client: Redis, clock: Clock) -> AsyncIterator[SessionStore]:
    pipelined = PipelinedClient(services.valkey_url(platform.layout, platform.secrets))
    yield SessionStore(client, pipelined, now=clock, new_id=uuid7, lifetime=timedelta(days=30), idle=timedelta(days=14))
    await pipelined.close()


async def ttl_days(client: Redis, session_id: str) -> float:
    return float(await client.pttl(f"bff:session:{{{session_id}}}")) / 86_400_000


async def test_a_session_lives_fourteen_idle_days_and_thirty_at_most(
    store: SessionStore, client: Redis, clock: Clock
) -> None:
    session, token = await store.start(str(uuid.uuid4()), "agent", "127.0.0.1")
    assert 13.9 < await ttl_days(client, session.id) <= 14
    clock.now += timedelta(days=20)
    session, token = await store.rotate(token, "agent", "127.0.0.1")
    assert 9.9 < await ttl_days(client, session.id) <= 10
    clock.now += timedelta(days=10)
    with pytest.raises(ServiceError) as caught:
        await store.rotate(token, "agent", "127.0.0.1")
    assert caught.value.reason == "INVALID_REFRESH_TOKEN"


async def test_last_seen_moves_at_most_once_a_minute_and_never_revives_a_session(
    store: SessionStore, clock: Clock
) -> None:
    user = str(uuid.uuid4())
    session, _ = await store.start(user, "agent", "127.0.0.1")
    clock.now += timedelta(seconds=30)
    await store.check(session.id, user)
    assert (await store.list(user))[0].last_seen_at == session.last_seen_at
    clock.now += timedelta(seconds=31)
    await store.check(session.id, user)
    assert (await store.list(user))[0].last_seen_at == clock.now
    await store.revoke(user, session.id)
    await store._touch(session)
    assert await store.list(user) == []


async def test_the_oldest_of_too_many_sessions_ends(store: SessionStore) -> None:
    user = str(uuid.uuid4())
    first, _ = await store.start(user, "agent", "127.0.0.1")
    for _ in range(50):
        await store.start(user, "agent", "127.0.0.1")
    assert len(await store.list(user)) == 50
    with pytest.raises(ServiceError):
        await store.check(first.id, user)


async def test_a_session_is_its_users_only(store: SessionStore) -> None:
    session, _ = await store.start(str(uuid.uuid4()), "agent", "127.0.0.1")
    with pytest.raises(ServiceError) as caught:
        await store.check(session.id, str(uuid.uuid4()))
    assert caught.value.reason == "UNAUTHENTICATED"


async def test_a_refresh_token_is_stored_as_its_hash_only(store: SessionStore, client: Redis) -> None:
    session, token = await store.start(str(uuid.uuid4()), "agent", "127.0.0.1")
    async for key in client.scan_iter(f"bff:session:{{{session.id}}}*"):
        assert token.encode() not in key
        assert token.encode() not in (await client.get(key) or b"")
