"""The worker that gives the broker what the outbox has, in order, at least once.

Of all replicas one does, the one that has the lease; it is there to save work and keeps nothing right by itself. What is right
is right with two relays as well: each publishes in the order of positions, many events as one that the broker stores whole or
not at all; or, where there are few or it does not take them so, the events of one subject one after the other, waiting for the
broker's word before the next one. It marks as published what it has that word for. Whichever of two is ahead, no event is
first told before the one before it was.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic as _clock
from time import perf_counter

import structlog

from chassis.database import Database
from chassis.errors import ServiceError
from chassis.events import outbox
from chassis.events.outbox import Row
from chassis.events.publisher import BrokerUnavailable, NotTogether, Publisher
from chassis.ids import uuid7
from chassis.metrics.families import Counter, Histogram, Reading

# Events that are read, and marked, together; and how many of them, of different subjects, are on their way at the same time.
BATCH = 500
IN_FLIGHT = 64
# So many are published as one: the broker has one answer to give, and writes to its disk once. For fewer it is not worth it.
TOGETHER = 16
# After a full page, so many times as long as it took: a backlog leaves the process and the machine to requests.
_REST = 1.0
# How long a relay that has died holds up the others.
LEASE = timedelta(seconds=10)
_RENEW_SECONDS = 3.0
# A follower tries to be the leader so often.
_FOLLOW_SECONDS = 2.0
# After so long it looks even when nobody has said that there is something.
POLL_SECONDS = 1.0
# Between one look and the next. What is committed meanwhile is read together.
_GATHER_SECONDS = 0.2
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 15.0
_MEASURE_SECONDS = 5.0
# For how long an event can be looked up after it was published.
_KEPT = timedelta(days=1)
_FORGET_SECONDS = 30.0
_FORGET_BATCH = 1000

_DEPTH = Reading(
    "backend_outbox_depth", "Events that are recorded and not yet published, as this process has last counted"
)
_AGE = Reading("backend_outbox_age_seconds", "How long the first of them has waited, as this process has last looked")
_PUBLISHED = Counter("backend_outbox_published_total", "Events that the broker has said it has")
_FAILURES = Counter(
    "backend_outbox_failures_total",
    "Tries to publish that failed: the broker was not there, or it did not take this event",
    reason=("unavailable", "refused"),
)
_LATENCY = Histogram(
    "backend_outbox_publish_duration_seconds",
    "From publishing an event, or many as one, until the broker has said it has it",
)

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Batch:
    # What is left of it: the events of each subject.
    subjects: Iterator[list[Row]]
    # Subjects of which nothing more may be published, because the broker has not taken an event of them.
    held: set[str]
    # Positions of what the broker has.
    published: list[int] = field(default_factory=list)
    # Why nothing more can be published now.
    failure: BrokerUnavailable | None = None


class Relay:
    """Publishes what a database's outbox has.

    Args:
        database: the service's.
        publisher: the broker.
        source: the service, as its events name it.
    """

    def __init__(self, database: Database, publisher: Publisher, *, source: str) -> None:
        self._database = database
        self._publisher = publisher
        self._source = source
        self._holder = uuid7()

    async def run(self) -> None:
        """Go on until cancelled; whatever fails is tried again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._relay())
            tasks.create_task(self._measure())

    async def _relay(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        try:
            while True:
                try:
                    if await self._takes_lease():
                        await self._lead()
                    else:
                        await self._follow()
                    pause = _FIRST_PAUSE_SECONDS
                except (BrokerUnavailable, ServiceError) as error:
                    _log.warning("events wait in the outbox", error=str(error) or type(error).__name__)
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        finally:
            await self._give_up_lease()

    async def _follow(self) -> None:
        """For a while, tell the one that publishes what has been committed here."""
        end = _clock() + _FOLLOW_SECONDS
        while _clock() < end:
            if await self._is_told():
                async with self._database.connection() as connection:
                    await outbox.notify(connection)
                await asyncio.sleep(_GATHER_SECONDS)

    async def _lead(self) -> None:
        """Publish for as long as the lease is ours and the others are heard."""
        taken = forgotten = _clock()
        async with self._database.listening(outbox.CHANNEL, self._database.told.set) as is_heard:
            while is_heard():
                if _clock() > taken + _RENEW_SECONDS:
                    if not await self._takes_lease():
                        return
                    taken = _clock()
                await self.publish_all()
                if _clock() > forgotten + _FORGET_SECONDS:
                    await self._forget()
                    forgotten = _clock()
                await asyncio.sleep(_GATHER_SECONDS)
                await self._is_told()

    async def _is_told(self) -> bool:
        """Wait until there is something to publish, but not for long; whether somebody has said so."""
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._database.told.wait()
        except TimeoutError:
            return False
        self._database.told.clear()
        return True

    async def publish_all(self) -> None:
        """Publish all that is recorded at this moment and not published.

        Raises:
            BrokerUnavailable, ServiceError: some of it is not.
        """
        after, until = 0, None
        held: set[str] = set()
        began = _clock()
        while page := await self._page(after, until):
            await self._publish(page.rows, held)
            after, until = page.rows[-1].position, until or page.last
            if len(page.rows) == BATCH:
                await asyncio.sleep(_REST * (_clock() - began))
            began = _clock()

    async def _page(self, after: int, until: int | None) -> outbox.Page | None:
        if until is not None and after >= until:
            return None
        async with self._database.connection() as connection:
            return await outbox.unpublished(connection, self._source, after, BATCH, until)

    async def _publish(self, rows: Sequence[Row], held: set[str]) -> None:
        """Publish these, but for those of subjects that are held, and mark those that the broker has."""
        rows = [row for row in rows if row.event.subject not in held]
        if len(rows) >= TOGETHER and await self._publish_together(rows):
            return
        by_subject: dict[str, list[Row]] = {}
        for row in rows:
            by_subject.setdefault(row.event.subject, []).append(row)
        batch = _Batch(iter(by_subject.values()), held)
        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(min(IN_FLIGHT, len(by_subject))):
                    lanes.create_task(self._publish_in_turn(batch))
        finally:
            if batch.published:
                await self._mark(batch.published)
        if batch.failure is not None:
            raise batch.failure

    async def _publish_together(self, rows: Sequence[Row]) -> bool:
        """Publish these as one; False when the broker does not take them so."""
        began = perf_counter()
        try:
            await self._publisher.publish_together([row.event for row in rows])
        except NotTogether as refusal:
            _log.info("events are published one by one", why=str(refusal), events=len(rows))
            return False
        except BrokerUnavailable:
            _FAILURES.add("unavailable")
            raise
        _LATENCY.add(perf_counter() - began)
        await self._mark([row.position for row in rows])
        return True

    async def _mark(self, positions: Sequence[int]) -> None:
        async with self._database.connection() as connection:
            await outbox.mark_published(connection, positions)
        _PUBLISHED.add(amount=len(positions))

    async def _publish_in_turn(self, batch: _Batch) -> None:
        for rows in batch.subjects:
            for row in rows:
                if batch.failure is not None:
                    return
                if row.event.subject in batch.held:
                    break
                began = perf_counter()
                try:
                    await self._publisher.publish(row.event)
                except BrokerUnavailable as error:
                    _FAILURES.add("unavailable")
                    batch.failure = error
                    return
                except Exception:
                    # The broker is there and does not take this one. What happened to others need not wait for it.
                    _FAILURES.add("refused")
                    _log.exception("an event is not published", event_id=str(row.event.id), subject=row.event.subject)
                    batch.held.add(row.event.subject)
                    break
                _LATENCY.add(perf_counter() - began)
                batch.published.append(row.position)

    async def _takes_lease(self) -> bool:
        async with self._database.connection() as connection:
            return await outbox.take_lease(connection, self._holder, LEASE)

    async def _give_up_lease(self) -> None:
        try:
            async with self._database.connection() as connection:
                await outbox.give_up_lease(connection, self._holder)
        except ServiceError as error:
            _log.info("the lease of the outbox is given up by its end", error=str(error))

    async def _forget(self) -> None:
        while True:
            async with self._database.connection() as connection:
                forgotten = await outbox.forget_published(connection, _KEPT, _FORGET_BATCH)
            if forgotten < _FORGET_BATCH:
                return

    async def _measure(self) -> None:
        while True:
            try:
                async with self._database.connection() as connection:
                    depth, age = await outbox.waiting(connection)
            except ServiceError as error:
                _log.info("the outbox cannot be looked at", error=str(error))
            else:
                _DEPTH.tell(depth)
                _AGE.tell(age)
            await asyncio.sleep(_MEASURE_SECONDS)
