"""A consumer for tests: it notes in a table what it has acted on, and may be killed at any step of any of its tasks.

As a program it lives many lives, each ended by SIGKILL at a step that its seed says, until a life comes to the end. A step is
what a task does between two awaits, so that kills happen before and after each.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from chassis.database import Connection, Database
from chassis.errors import ServiceError
from chassis.events import consumer as consuming
from chassis.events import limits
from chassis.events.consumer import Consumer, Delivery, Handles, Policy
from chassis.events.event import Event
from chassis.events.inbox import TABLE
from chassis.events.nats import Nats
from chassis.events.nats_consumer import NatsConsumer
from google.protobuf.wrappers_pb2 import Int64Value

NAME = "listener"
SCHEMA = f"""
{TABLE}
CREATE TABLE effects (at bigint GENERATED ALWAYS AS IDENTITY, subject text NOT NULL, number bigint NOT NULL);
"""
# As the test has configured the broker.
PATIENCE = 1.0
# Not empty once a handler has begun, in this life.
ARMED: set[str] = set()
QUICK = Policy(first_pause=0.02, longest_pause=0.1, deadline=5.0, attempts=4)


class Note:
    """A handler: one row for each event, in two statements, so that there is something to be killed between."""

    async def __call__(self, message: Int64Value, event: Event, connection: Connection) -> None:
        ARMED.add("a handler has begun")
        await connection.fetch("SELECT 1")
        await connection.execute("INSERT INTO effects (subject, number) VALUES ($1, $2)", event.subject, message.value)


class Hasty(Consumer):
    """Wrong on purpose: tells the broker before it has committed."""

    async def _attempt(self, held: consuming._Held, event: Event, handler: consuming.Acts) -> bool:
        await self._source.acknowledge(held.delivery)
        return await super()._attempt(held, event, handler)


@dataclass(frozen=True)
class Life:
    """What the program is told."""

    url: str
    certificates: str
    database: str
    expected: int
    seed: int
    kills: int
    hasty: bool = False


async def live(life: Life) -> None:
    """Act on events until all have been acted on."""
    limits.ACK_SECONDS = PATIENCE
    # Here processes and brokers die far more often than events would be taken for the cause of it.
    consuming.MOST_DELIVERIES = 1000
    broker = Nats(life.url, Path(life.certificates), NAME, timeout=2.0)
    database = Database(life.database, min_size=1, max_size=8, service="test")
    while True:
        try:
            await database.open()
        except (OSError, asyncpg.PostgresError):
            await asyncio.sleep(0.05)
        else:
            break
    kind = Hasty if life.hasty else Consumer
    consumer = kind(NAME, Source(broker, NAME), database, [Handles(Int64Value, Note())], QUICK)
    tasks = [asyncio.create_task(broker.run()), asyncio.create_task(consumer.run())]
    while not await is_done(life, database):
        await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await database.close()


class Source(NatsConsumer):
    """Says that there is nothing left once the broker says so."""

    last: consuming.Backlog | None = None

    async def backlog(self) -> consuming.Backlog:
        Source.last = await super().backlog()
        return Source.last

    async def dead_letters(self) -> int:
        # Who listens here has no such right.
        return 0

    async def acknowledge(self, delivery: Delivery) -> None:
        await super().acknowledge(delivery)
        await self.backlog()


async def is_done(life: Life, database: Database) -> bool:
    try:
        async with database.connection() as connection:
            row = await connection.fetchrow("SELECT count(DISTINCT (subject, number)) AS count FROM effects")
    except ServiceError:
        return False
    if row is not None and row["count"] >= life.expected:
        return True
    # The hasty one has lost some when there is nothing left to be given.
    return life.hasty and Source.last is not None and Source.last == consuming.Backlog(0, 0)


@types.coroutine
def _stepped(work: Coroutine[Any, Any, Any], step: Steps) -> Generator[Any, Any, Any]:
    try:
        wanted = work.send(None)
        while True:
            step()
            try:
                given = yield wanted
            except BaseException as error:
                step()
                wanted = work.throw(error)
            else:
                step()
                wanted = work.send(given)
    except StopIteration as stop:
        return stop.value


class Steps:
    """Counts the steps of a life, from its beginning or from that of its first handler, and ends it at one of them."""

    def __init__(self, last: int, *, at_work: bool) -> None:
        self._left = last
        self._at_work = at_work

    def __call__(self) -> None:
        if self._at_work and not ARMED:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def factory(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        async def counted() -> Any:
            return await _stepped(work, self)

        return asyncio.Task(counted() if asyncio.iscoroutine(work) else work, loop=loop, **options)


def lives(life: Life, live: Callable[[Life], Coroutine[Any, Any, None]], chance: random.Random) -> None:
    """Live, be killed, and live again; print how often, and how the last life ended."""
    killed = 0
    while True:
        # Every third life does not come to its first event.
        steps = Steps(chance.randrange(1, 600) if killed < life.kills else 0, at_work=killed % 3 > 0)
        child = os.fork()
        if child == 0:
            with asyncio.Runner() as runner:
                runner.get_loop().set_task_factory(steps.factory)
                runner.run(live(life))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            print(json.dumps({"killed": killed, "status": os.WEXITSTATUS(status)}))
            return
        killed += 1


if __name__ == "__main__":
    given = Life(**json.loads(sys.argv[1]))
    lives(given, live, random.Random(given.seed))
