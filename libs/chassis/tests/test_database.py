"""The pool, on the real PostgreSQL."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from chassis.database import Database

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
