"""Relays for tests, each ended by SIGKILL at a step of any of its tasks that its seed says, until one comes to the end.

    python tests/relaying.py '{"url": …}'

The last one ends when so many changes as are expected are committed and all of them are published.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import asyncpg
from chassis.database import Database
from chassis.errors import ServiceError
from chassis.events import outbox, relay
from chassis.events.nats import Nats
from chassis.events.outbox import Row
from chassis.events.relay import Relay
from listening import ARMED, Life, lives

NAME = "teller"


class MarksFirst(Relay):
    """Wrong on purpose: it marks before it publishes."""

    async def _publish(self, rows: Sequence[Row], held: set[str]) -> None:
        await self._mark([row.position for row in rows])
        await super()._publish(rows, held)


class Broker(Nats):
    """Says when the first event is about to be published in this life."""

    async def store(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        ARMED.add("publishing")
        await super().store(subject, data, headers)


async def live(life: Life) -> None:
    """Publish until all is published."""
    # A dead relay is not waited for, and events go in pages and batches of a few.
    relay.LEASE, relay._RENEW_SECONDS, relay._FOLLOW_SECONDS = timedelta(milliseconds=50), 0.02, 0.05
    relay._FIRST_PAUSE_SECONDS, relay._LONGEST_PAUSE_SECONDS = 0.02, 0.2
    relay._GATHER_SECONDS, relay.POLL_SECONDS, relay.BATCH = 0.01, 0.05, 60
    broker = Broker(life.url, Path(life.certificates), NAME, timeout=2.0)
    database = await opened(life)
    kind = MarksFirst if life.hasty else Relay
    running = asyncio.create_task(broker.run()), asyncio.create_task(kind(database, broker, source=NAME).run())
    while not await is_done(life, database):
        await asyncio.sleep(0.05)
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    await database.close()


async def opened(life: Life) -> Database:
    """Its database, once it is there."""
    database = Database(life.database, min_size=1, max_size=4, service=NAME)
    while True:
        try:
            await database.open()
        except (OSError, asyncpg.PostgresError):
            await asyncio.sleep(0.05)
        else:
            return database


async def is_done(life: Life, database: Database) -> bool:
    try:
        async with database.connection() as connection:
            row = await connection.fetchrow("SELECT count(*) AS count FROM written")
            return row is not None and row["count"] >= life.expected and not (await outbox.waiting(connection))[0]
    except ServiceError:
        return False


if __name__ == "__main__":
    given = Life(**json.loads(sys.argv[1]))
    lives(given, live, random.Random(given.seed))
