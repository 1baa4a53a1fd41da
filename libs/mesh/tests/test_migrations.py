"""Migrations beside transactions that are open, on the real PostgreSQL, in a database of their own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from mesh.migrations import Migration, MigrationError, Patience, apply, pending, read

from conftest import Platform
from devstack import postgres

# Short, for nothing here is worth a second's wait.
_PATIENCE = Patience(lock=0.3, statement=5, pauses=(0.2, 0.2), concurrent_lock=10)
_TABLE = "-- migrate:up\nCREATE TABLE goods (id int, name text);\nINSERT INTO goods VALUES (1, 'a'), (1, 'b');\n"
_COLUMN = "-- migrate:up\nALTER TABLE goods ADD COLUMN price bigint;\n\n-- migrate:down\nDROP TABLE goods;\n"
_INDEX = (
    "-- migrate:up transaction:false\n-- Why.\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS goods_id ON goods (id);\n"
)


@dataclass(frozen=True)
class Scratch:
    """A database, and a directory of migrations for it."""

    url: str
    directory: Path

    def add(self, version: int, text: str) -> None:
        (self.directory / f"{version}_x.sql").write_text(text, encoding="utf-8")

    async def apply(self, said: list[str] | None = None, patience: Patience = _PATIENCE) -> list[str]:
        done = await apply(self.url, read(self.directory), ([] if said is None else said).append, patience)
        return [migration.version for migration in done]

    async def connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(self.url, server_settings={"application_name": "report"})

    async def columns(self) -> set[str]:
        connection = await self.connect()
        rows = await connection.fetch("SELECT column_name FROM information_schema.columns WHERE table_name = 'goods'")
        await connection.close()
        return {row["column_name"] for row in rows}


@pytest.fixture
async def scratch(platform: Platform, tmp_path: Path) -> AsyncIterator[Scratch]:
    name = f"scratch_{uuid.uuid4().hex}"
    server = await platform.database("postgres")
    await server.execute(f"CREATE DATABASE {name}")
    found = Scratch(postgres.superuser_url(platform.layout, platform.secrets, name), tmp_path)
    found.add(1, _TABLE)
    assert await found.apply() == ["1"]
    yield found
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close()


async def test_a_migration_behind_a_long_transaction_gives_up_and_lets_the_others_through(scratch: Scratch) -> None:
    scratch.add(2, _COLUMN)
    blocker, reader = await scratch.connect(), await scratch.connect()
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.fetch("SELECT * FROM goods")
    said: list[str] = []
    blocked = asyncio.create_task(scratch.apply(said))
    reads = 0
    while not blocked.done():
        # Behind the waiting migration for as long as it may wait, and no longer.
        await reader.fetch("SELECT * FROM goods", timeout=_PATIENCE.lock + 2)
        reads += 1
        await asyncio.sleep(0.01)
    with pytest.raises(MigrationError, match=r"2_x\.sql waits for process \d+ \(postgres, report, idle in transaction"):
        await blocked
    assert reads > len(_PATIENCE.pauses)
    assert len(said) == len(_PATIENCE.pauses)
    assert str(blocker.get_server_pid()) in said[-1]
    assert "price" not in await scratch.columns()
    await transaction.rollback()
    assert await scratch.apply() == ["2"]
    assert "price" in await scratch.columns()
    assert await scratch.apply() == []
    await blocker.close()
    await reader.close()


async def test_a_migration_is_tried_again_until_the_transaction_before_it_has_ended(scratch: Scratch) -> None:
    scratch.add(2, _COLUMN)
    blocker = await scratch.connect()
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("LOCK TABLE goods")
    said: list[str] = []
    waiting = asyncio.create_task(scratch.apply(said, Patience(lock=0.2, pauses=(0.1,) * 100)))
    async with asyncio.timeout(20):
        while len(said) < 2:
            await asyncio.sleep(0.01)
    await transaction.rollback()
    assert await waiting == ["2"]
    await blocker.close()


async def test_a_statement_that_would_hold_its_locks_for_too_long_is_ended_and_undone(scratch: Scratch) -> None:
    scratch.add(2, _COLUMN.replace(";\n\n", ";\nSELECT pg_sleep(30);\n\n"))
    with pytest.raises(MigrationError, match=r"2_x\.sql: QueryCanceledError"):
        await scratch.apply(patience=Patience(statement=0.2))
    assert "price" not in await scratch.columns()
    assert [migration.version for migration in await pending(scratch.url, read(scratch.directory))] == ["2"]


async def test_an_index_is_built_beside_writers_and_what_a_failed_build_left_is_built_again(scratch: Scratch) -> None:
    scratch.add(2, _INDEX)
    writer = await scratch.connect()
    # A build that found two equal ids leaves an invalid index of that name.
    with pytest.raises(MigrationError, match="UniqueViolationError"):
        await scratch.apply()
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'goods_id'::regclass"
    assert await writer.fetchval(valid) is False
    await writer.execute("DELETE FROM goods WHERE name = 'b'")
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute("INSERT INTO goods VALUES (2, 'c')")
    building = asyncio.create_task(scratch.apply())
    other = await scratch.connect()
    progress = "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(20):
        while not await other.fetchval(progress):
            await asyncio.sleep(0.01)
    # It waits for that transaction, longer than any other migration might; nobody waits for it.
    await asyncio.sleep(2 * _PATIENCE.lock)
    await other.execute("INSERT INTO goods VALUES (3, 'd')", timeout=5)
    await transaction.commit()
    assert await building == ["2"]
    assert await writer.fetchval(valid) is True
    await writer.close()
    await other.close()


async def test_two_runners_at_once_run_everything_once(scratch: Scratch) -> None:
    for version in range(2, 8):
        scratch.add(version, f"-- migrate:up\nALTER TABLE goods ADD COLUMN c{version} int;\n")
    done = await asyncio.gather(*(scratch.apply() for _ in range(4)))
    assert sorted(version for versions in done for version in versions) == [str(v) for v in range(2, 8)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("first.sql", "-- migrate:up\nSELECT 1;\n"),
        ("1_x.sql", "SELECT 1;\n"),
        ("1_x.sql", "-- migrate:up transactions:false\nSELECT 1;\n"),
        ("1_x.sql", "-- migrate:up transaction:false\nALTER TABLE goods ADD COLUMN price bigint;\n"),
        ("1_x.sql", "-- migrate:up transaction:false\nCREATE INDEX CONCURRENTLY goods_id ON goods (id);\n"),
        ("1_x.sql", _INDEX + "CREATE INDEX CONCURRENTLY IF NOT EXISTS goods_name ON goods (name);\n"),
    ],
)
def test_what_is_no_migration_or_may_not_run_outside_a_transaction_is_refused(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(MigrationError, match=name):
        read(tmp_path)


def test_the_part_that_goes_back_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "20260101000001_x.sql").write_text(_COLUMN, encoding="utf-8")
    assert read(tmp_path) == [
        Migration("20260101000001", "20260101000001_x.sql", "ALTER TABLE goods ADD COLUMN price bigint;", True)
    ]
