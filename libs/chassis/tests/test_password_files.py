"""Passwords that change while connections are in use, on the real servers."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from chassis import password_files
from chassis.database import Database
from chassis.password_files import following, passwords
from chassis.valkey import PipelinedClient
from chassis.workers import Workers

from conftest import Platform
from devstack import postgres, services

_URL = "postgresql://{role}@/{database}?host={host}"


@pytest.fixture
async def role(platform: Platform) -> AsyncIterator[str]:
    """A role of PostgreSQL that is nobody's, without a password yet."""
    name = f"role_{uuid.uuid4().hex}"
    server = await platform.database("userdb")
    await server.execute(f"CREATE ROLE {name} LOGIN")
    await server.execute(f"GRANT CONNECT ON DATABASE userdb TO {name}")
    yield name
    await server.execute(f"REVOKE CONNECT ON DATABASE userdb FROM {name}")
    await server.execute(f"DROP ROLE {name}")
    await server.close()


async def test_a_busy_pool_is_renewed_again_and_again_and_nobody_notices(
    platform: Platform, role: str, tmp_path: Path
) -> None:
    file, server = tmp_path / "password", await platform.database("userdb")
    await server.execute(f"ALTER ROLE {role} PASSWORD 'p0'")
    file.write_text("p0\n", encoding="utf-8")
    url = _URL.format(role=role, database="userdb", host=postgres.socket_directory(platform.layout))
    database = Database(url, min_size=1, max_size=2, service="test", password_file=file)
    await database.open()
    stopping, done = asyncio.Event(), Counter[str]()

    async def work() -> None:
        while not stopping.is_set():
            # Two at a time; the others wait for their turn.
            async with database.transaction() as connection:
                await connection.execute("SELECT pg_sleep(0.005)")
                done["work"] += 1

    async with asyncio.TaskGroup() as clients:
        for _ in range(12):
            clients.create_task(work())
        for number in range(1, 6):
            # As a rotation does it: both, the server, the new one.
            file.write_text(f"p{number}\np{number - 1}\n", encoding="utf-8")
            await database.renew()
            await server.execute(f"ALTER ROLE {role} PASSWORD 'p{number}'")
            await database.renew()
            file.write_text(f"p{number}\n", encoding="utf-8")
            before = done["work"]
            await database.renew()
            async with asyncio.timeout(10):
                while done["work"] < before + 20:
                    await asyncio.sleep(0.01)
        stopping.set()
    connected = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"
    assert await server.fetchval(connected, role) <= 2
    await database.close()
    await server.close()


async def test_a_busy_connection_to_valkey_is_renewed_again_and_again_and_nobody_notices(platform: Platform) -> None:
    client = PipelinedClient(services.valkey_url(platform.layout, platform.secrets))
    key, stopping = f"test:{uuid.uuid4()}", asyncio.Event()
    await client.set(key, b"x", 60)

    async def work() -> None:
        while not stopping.is_set():
            assert await client.get(key) == b"x"

    async with asyncio.TaskGroup() as clients:
        for _ in range(20):
            clients.create_task(work())
        for _ in range(50):
            await client.renew()
            await asyncio.sleep(0.002)
        stopping.set()
    await client.close()


async def test_a_changed_file_renews_once_and_a_failure_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(password_files, "_LOOK_SECONDS", 0.01)
    file, calls = tmp_path / "password", 0
    file.write_text("a", encoding="utf-8")

    async def renew() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("away")

    async with Workers(following(file, renew)):
        await asyncio.sleep(0.1)
        assert calls == 0
        replacement = tmp_path / "new"
        replacement.write_text("b", encoding="utf-8")
        replacement.replace(file)
        async with asyncio.timeout(5):
            while calls < 2:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
    assert calls == 2


@pytest.mark.parametrize(
    ("before", "after", "tried"),
    [
        ("a", "a", ["a"]),
        ("new\nold\n", "new\nold\n", ["new", "old", "new"]),
        # It was read just before a rotation began, and the server has changed meanwhile.
        ("old", "new\nold", ["old", "new", "old", "new"]),
    ],
)
def test_what_is_tried_until_the_server_takes_one(tmp_path: Path, before: str, after: str, tried: list[str]) -> None:
    file = tmp_path / "password"
    file.write_text(before, encoding="utf-8")
    found = passwords(file)
    first = next(found)
    file.write_text(after, encoding="utf-8")
    assert [first, *found] == tried
