"""Relays that are killed one after the other, each before or after any one of its awaits, until nothing is left to publish.

    python tests/killed_relays.py URL PUBLISHED --seed 1 --kills 200 [--marks-first]

URL is the database's; PUBLISHED is where the broker of this test appends what it has stored, a line an event. Each relay is a
process of its own (forked, for a start would take half a second), and its end is SIGKILL: nothing is cleaned up. Where that
is, says the seed. The broker is not there now and then, before it has stored an event or after.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import structlog
from chassis.database import Connection, Database
from chassis.events import outbox, relay
from chassis.events.event import Event
from chassis.events.outbox import Row
from chassis.events.publisher import BrokerUnavailable, NotTogether
from chassis.events.relay import Relay

# Of a hundred publications, how many the broker says nothing about, although it has stored half of them.
_UNANSWERED = 1
# Of a hundred batches, how many it does not take as one.
_NOT_TOGETHER = 30
T = TypeVar("T")


class Life:
    """Ends at its step of this number; without one, when nothing is left to do."""

    def __init__(self, last: int | None) -> None:
        self._left = last

    def step(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(  # type: ignore[explicit-any]  # whatever the arguments are
        self, call: Callable[..., Awaitable[T]]
    ) -> Callable[..., Awaitable[T]]:
        """The same, with a step before it is sent, one before its answer has come, and one after."""

        async def stepping(*args: object) -> T:
            self.step()
            sent = asyncio.ensure_future(call(*args))
            await asyncio.sleep(0)
            self.step()
            answer = await sent
            self.step()
            return answer

        return stepping


class Broker:
    """Stores by appending a line to a file, which outlives whoever publishes."""

    def __init__(self, published: Path, life: Life, rng: random.Random) -> None:
        self._file = os.open(published, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._life = life
        self._rng = rng

    async def publish(self, event: Event) -> None:
        await self._store([event])

    async def publish_together(self, events: Sequence[Event]) -> None:
        if self._rng.randrange(100) < _NOT_TOGETHER:
            raise NotTogether("it has one of them")
        await self._store(events)

    async def _store(self, events: Sequence[Event]) -> None:
        self._life.step()
        is_answered = self._rng.randrange(100) >= _UNANSWERED
        if not is_answered and self._rng.randrange(2):
            raise BrokerUnavailable("it was not there")
        os.write(self._file, b"".join(event.data + b"\n" for event in events))
        self._life.step()
        # Those of other subjects go on; their answers come in another order.
        for _ in range(self._rng.randrange(3)):
            await asyncio.sleep(0)
        if not is_answered:
            raise BrokerUnavailable("it has not said so")


class MarksFirst(Relay):
    """What a relay must not do: it marks before it publishes."""

    async def _publish(self, rows: Sequence[Row], held: set[str]) -> None:
        async with self._database.connection() as connection:
            await outbox.mark_published(connection, [row.position for row in rows])
        await super()._publish(rows, held)


async def _live(url: str, published: Path, last: int | None, seed: int, kind: type[Relay]) -> None:
    life = Life(last)
    for name in ("fetch", "fetchrow", "execute"):
        setattr(Connection, name, life.around(getattr(Connection, name)))
    database = Database(url, min_size=1, max_size=3, service="order")
    await database.open()
    one = kind(database, Broker(published, life, random.Random(seed)), source="order")
    running = asyncio.create_task(one.run())
    if last is None:
        async with database.connection() as connection:
            while (await outbox.waiting(connection))[0]:
                await asyncio.sleep(0.05)
        running.cancel()
    await asyncio.wait({running})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("published", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--marks-first", action="store_true")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    # A dead relay is not waited for.
    relay.LEASE, relay._RENEW_SECONDS, relay._FOLLOW_SECONDS = timedelta(milliseconds=20), 0.0, 0.02
    relay._FIRST_PAUSE_SECONDS, relay._GATHER_SECONDS, relay.POLL_SECONDS = 0.005, 0.001, 0.002
    relay.BATCH = 50
    kind = MarksFirst if given.marks_first else Relay
    rng = random.Random(given.seed)
    for number in range(given.kills + 1):
        # As often at its beginning as anywhere in its first batches.
        last = None if number == given.kills else rng.randrange(rng.choice((30, 500)))
        life = os.fork()
        if life == 0:
            asyncio.run(_live(given.url, given.published, last, rng.randrange(2**32), kind))
            os._exit(0)
        _, status = os.waitpid(life, 0)
        if (os.waitstatus_to_exitcode(status) == -signal.SIGKILL) != (last is not None):
            sys.exit(f"the relay of number {number} ended with {status}")


if __name__ == "__main__":
    main()
