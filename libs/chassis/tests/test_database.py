"""The pool, on the real PostgreSQL."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from chassis.database import Database
from chassis.errors import ServiceError

from conftest import Platform
from devstack import postgres


async def test_a_pool_that_could_not_be_opened_is_opened_by_the_next_attempt(platform: Platform) -> None:
    """A service that starts while its database is down must not stay without it."""
    real = postgres.database_of("order", platform.secrets).url(platform.layout)
    # Short: a socket's path may have about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="db-", dir="/tmp") as directory:
        endpoint = Path(directory) / ".s.PGSQL.5432"
        database = Database(f"{real.partition('?host=')[0]}?host={directory}", min_size=1, max_size=2, service="test")
        for _ in range(2):
            with pytest.raises(OSError, match=r".*"):
                await database.open()
        endpoint.symlink_to(postgres.socket_directory(platform.layout) / ".s.PGSQL.5432")
        await database.open()
        await database.ping()
        await database.close()


@pytest.mark.parametrize("sqlstate", ["53100", "53200", "53300", "58030", "25006", "55000", "3D000"])
async def test_a_server_without_room_is_one_that_is_away_for_now(platform: Platform, sqlstate: str) -> None:
    """A full disk, no memory, too many connections, an error of the disk, a server that only reads, a database in exchange."""
    database = Database(
        postgres.database_of("order", platform.secrets).url(platform.layout), min_size=1, max_size=1, service="test"
    )
    await database.open()
    try:
        with pytest.raises(ServiceError) as raised:
            async with database.transaction() as connection:
                await connection.fetch(f"DO $$ BEGIN RAISE 'no room' USING ERRCODE = '{sqlstate}'; END $$")
    finally:
        await database.close()
    assert raised.value.reason == "UNAVAILABLE"
