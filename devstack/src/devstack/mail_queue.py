"""The mails that the Notification service has noted and not sent, and sending again what it has given up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg
from mesh.topology import Service, row

from devstack import postgres
from devstack.layout import Layout
from devstack.secrets import load_or_create

_SERVICE = "notification"
_MOST = 200
_NOT_SENT = """
SELECT event_id, kind, state::text AS state, attempts, last_error, noted_at, next_attempt_at FROM mails
WHERE state IN ('waiting', 'refused', 'given_up') ORDER BY noted_at LIMIT $1
"""
_AGAIN = """
UPDATE mails SET state = 'waiting', attempts = 0, next_attempt_at = now(), ended_at = NULL
WHERE state IN ('refused', 'given_up') AND ($1::uuid IS NULL OR event_id = $1) RETURNING event_id
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A mail that is not sent: it waits for its next attempt, was refused, or was given up."""

    event_id: UUID
    kind: str
    state: str
    attempts: int
    last_error: str
    noted_at: datetime
    next_attempt_at: datetime


async def not_sent(layout: Layout) -> list[Waiting]:
    """The eldest first, some hundreds at most.

    Raises:
        OSError, asyncpg.PostgresError: PostgreSQL does not answer.
    """
    async with _connection(layout) as connection:
        return [Waiting(**found) for found in await connection.fetch(_NOT_SENT, _MOST, timeout=30)]


async def again(layout: Layout, event_id: UUID | None) -> list[UUID]:
    """Have a mail sent that was refused or given up, under its old Message-ID, or all of them; those that are.

    Raises:
        OSError, asyncpg.PostgresError: PostgreSQL does not answer.
    """
    async with _connection(layout) as connection:
        return [found["event_id"] for found in await connection.fetch(_AGAIN, event_id, timeout=30)]


@asynccontextmanager
async def _connection(layout: Layout) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    service = row(_SERVICE)
    if not isinstance(service, Service) or service.database is None:
        raise LookupError(f"{_SERVICE} has no database")
    url = postgres.superuser_url(layout, load_or_create(layout.secrets), service.database.name)
    connection = await asyncpg.connect(url, timeout=5)
    try:
        yield connection
    finally:
        await connection.close()
