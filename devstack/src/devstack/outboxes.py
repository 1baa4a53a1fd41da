"""What the outbox of each service has that the broker does not have yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import asyncpg
from mesh.topology import SERVICES

from devstack import postgres
from devstack.layout import Layout
from devstack.secrets import load_or_create

_WAITING = """
SELECT count(*) AS events, count(DISTINCT subject) AS subjects, min(recorded_at) AS since,
       (SELECT subject FROM outbox WHERE published_at IS NULL ORDER BY position LIMIT 1) AS first,
       (SELECT holder::text FROM outbox_lease WHERE until > now()) AS relay
FROM outbox WHERE published_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Events of a service that are not published: how many, of how many subjects, since when, the first one's subject.

    `relay`: the one that has the lease, as it names itself; empty when none has.
    """

    service: str
    events: int
    subjects: int
    since: datetime | None
    first: str
    relay: str


async def waiting(layout: Layout) -> list[Waiting]:
    """Of each service that publishes.

    Raises:
        OSError, asyncpg.PostgresError: PostgreSQL does not answer.
    """
    found, secrets = [], load_or_create(layout.secrets)
    for service in SERVICES:
        if not service.publishes or service.database is None:
            continue
        connection = await asyncpg.connect(postgres.superuser_url(layout, secrets, service.database.name), timeout=5)
        try:
            row = await connection.fetchrow(_WAITING, timeout=30)
        finally:
            await connection.close()
        if row is not None:
            told = (row["events"], row["subjects"], row["since"], row["first"] or "", row["relay"] or "")
            found.append(Waiting(service.name, *told))
    return found
