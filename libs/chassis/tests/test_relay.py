"""The outbox and its relay, on the real PostgreSQL; the broker notes what it is given."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import killed_relays
import pytest
from chassis import context
from chassis.context import RequestContext
from chassis.database import Database
from chassis.errors import ServiceError
from chassis.events import outbox, relay
from chassis.events.event import Event
from chassis.events.publisher import BrokerUnavailable, NotTogether
from chassis.events.relay import Relay
from chassis.ids import uuid7
from contracts.order.v1 import catalog_pb2, events_pb2

from conftest import Platform
from devstack import postgres

# RELAY_KILLS=200 is ten thousand events.
KILLS = int(os.environ.get("RELAY_KILLS", "40"))
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


@dataclass
class Broker:
    """Notes what it stores, one event at a time; what it does before and after that, a test may say."""

    stored: list[Event] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    takes_batches: bool = False
    before: Callable[[Event], Awaitable[None]] | None = None
    after: Callable[[Event], Awaitable[None]] | None = None

    async def publish(self, event: Event) -> None:
        if self.before is not None:
            await self.before(event)
        self.stored.append(event)
        if self.after is not None:
            await self.after(event)

    async def publish_together(self, events: Sequence[Event]) -> None:
        self.batches.append(len(events))
        if not self.takes_batches:
            raise NotTogether("it takes them one by one")
        for event in events:
            await self.publish(event)

    @property
    def told(self) -> list[str]:
        return [event.data.decode() for event in self.stored]


@dataclass
class Outbox:
    url: str
    database: Database
    superuser: asyncpg.Connection

    def relay(self, broker: Broker, database: Database | None = None) -> Relay:
        return Relay(database or self.database, broker, source="order")

    @asynccontextmanager
    async def replica(self) -> AsyncIterator[Database]:
        database = Database(self.url, min_size=1, max_size=4, service="order")
        await database.open()
        try:
            yield database
        finally:
            await database.close()

    async def record(self, *told: str, database: Database | None = None) -> None:
        """In one transaction: "a1" is the first event of the subject a."""
        async with (database or self.database).transaction() as transaction:
            transaction.events += map(event_of, told)

    async def waiting(self) -> int:
        async with self.database.connection() as connection:
            return (await outbox.waiting(connection))[0]

    async def empty(self) -> None:
        async with asyncio.timeout(20):
            while await self.waiting():
                await asyncio.sleep(0.05)


def event_of(told: str) -> Event:
    return Event(
        uuid7(), "order", "order.v1.OrderPaid", f"order/{told[0]}", NOW, "urn:backend:event:x", "", told.encode()
    )


@pytest.fixture(scope="module")
def own(platform: Platform) -> Iterator[postgres.ServiceDatabase]:
    """The database of a service, of these tests' own."""
    made = replace(postgres.database_of("order", platform.secrets), database=f"outbox_{uuid.uuid4().hex}")

    async def prepare() -> None:
        await postgres.prepare_one(platform.layout, platform.secrets, made)
        await postgres.migrate_one(platform.layout, platform.secrets, made, print)

    async def drop() -> None:
        superuser = await platform.database("postgres")
        await superuser.execute(f"DROP DATABASE {made.database} WITH (FORCE)")
        await superuser.close()

    asyncio.run(prepare())
    yield made
    asyncio.run(drop())


@pytest.fixture
async def box(platform: Platform, own: postgres.ServiceDatabase) -> AsyncIterator[Outbox]:
    """It, with nothing in its outbox, and nobody who publishes."""
    inside = await platform.database(own.database)
    await inside.execute("TRUNCATE outbox RESTART IDENTITY; UPDATE outbox_lease SET until = '-infinity'")
    database = Database(own.url(platform.layout), min_size=1, max_size=8, service="order")
    await database.open()
    yield Outbox(own.url(platform.layout), database, inside)
    await database.close()
    await inside.close()


async def test_what_is_recorded_is_told_as_it_was_and_of_what_is_rolled_back_nothing(box: Outbox) -> None:
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    order_id, broker = uuid7(), Broker()
    message = events_pb2.PaymentFailed(order_id=str(order_id), failure=events_pb2.PAYMENT_FAILURE_DECLINED)
    with context.serving(RequestContext("a-request", traceparent=traceparent)):
        async with box.database.transaction() as transaction:
            transaction.record(order_id, message, NOW)
    with pytest.raises(ZeroDivisionError):
        async with box.database.transaction() as transaction:
            transaction.record(order_id, message, NOW)
            raise ZeroDivisionError
    await box.relay(broker).publish_all()
    (event,) = broker.stored
    assert event == Event(
        id=event.id,
        source="order",
        type="order.v1.PaymentFailed",
        subject=f"order/{order_id}",
        time=NOW,
        dataschema="urn:backend:event:order.v1.PaymentFailed",
        traceparent=traceparent,
        data=message.SerializeToString(),
    )
    assert event.id.version == 7
    await box.relay(broker).publish_all()
    assert len(broker.stored) == 1


async def test_a_message_that_is_no_event_is_refused(box: Outbox) -> None:
    with pytest.raises(ValueError, match=r"order\.v1\.Product is no event"):
        async with box.database.transaction() as transaction:
            transaction.record(uuid7(), catalog_pb2.Product(id="x"), NOW)


async def test_who_commits_late_is_not_skipped(box: Outbox) -> None:
    broker = Broker()
    async with box.database.transaction() as late:
        await outbox.write(late, [event_of("a1")])
        await box.record("b1")
        await box.relay(broker).publish_all()
        assert broker.told == ["b1"]
    await box.relay(broker).publish_all()
    assert broker.told == ["b1", "a1"]
    assert await box.waiting() == 0


async def test_who_commits_late_is_not_overtaken_by_what_follows_it(
    box: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its position lies in a page that has been read, that of the next event of its subject in one that has not."""
    monkeypatch.setattr(relay, "BATCH", 1)
    async with AsyncExitStack() as stack:
        late = await stack.enter_async_context(box.database.transaction())
        await outbox.write(late, [event_of("a1")])
        await box.record("b1", "b2")

        async def commit(event: Event) -> None:
            if event.data == b"b1":
                await stack.aclose()
                await box.record("a2")

        broker = Broker(after=commit)
        await box.relay(broker).publish_all()
    await box.relay(broker).publish_all()
    assert broker.told == ["b1", "b2", "a1", "a2"]


async def test_subjects_are_told_side_by_side_and_each_in_its_order(box: Outbox) -> None:
    at_once = most = 0

    async def before(_event: Event) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        for _ in range(random.randrange(5)):
            await asyncio.sleep(0)

    async def after(_event: Event) -> None:
        nonlocal at_once
        await asyncio.sleep(0)
        at_once -= 1

    subjects = [chr(0x4E00 + number) for number in range(2 * relay.IN_FLIGHT)]
    for number in range(5):
        await box.record(*(f"{subject}{number}" for subject in random.sample(subjects, len(subjects))))
    broker = Broker(before=before, after=after)
    await box.relay(broker).publish_all()
    assert most == relay.IN_FLIGHT
    for subject in subjects:
        assert [told for told in broker.told if told[0] == subject] == [f"{subject}{number}" for number in range(5)]


async def test_when_the_broker_does_not_answer_what_it_has_is_marked_and_the_rest_waits_in_order(box: Outbox) -> None:
    async def after(event: Event) -> None:
        if event.data == b"a2" and len(broker.stored) < 4:
            raise BrokerUnavailable("no answer")

    broker = Broker(after=after)
    await box.record("a1", "a2", "a3")
    with pytest.raises(BrokerUnavailable):
        await box.relay(broker).publish_all()
    assert broker.told == ["a1", "a2"]
    assert await box.waiting() == 2
    with pytest.raises(BrokerUnavailable):
        await box.relay(broker).publish_all()
    await box.relay(broker).publish_all()
    # Told again under the same id, which is how the broker and its readers know it.
    assert broker.told == ["a1", "a2", "a2", "a2", "a3"]
    assert len({event.id for event in broker.stored}) == 3


async def test_an_event_that_the_broker_does_not_take_holds_up_its_own_subject_alone(
    box: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "BATCH", 2)
    takes = False

    async def before(event: Event) -> None:
        if event.data == b"a2" and not takes:
            raise ValueError("too large")

    broker = Broker(before=before)
    await box.record("a1", "b1", "a2", "a3", "b2", "a4")
    await box.relay(broker).publish_all()
    assert broker.told == ["a1", "b1", "b2"]
    takes = True
    await box.relay(broker).publish_all()
    assert broker.told == ["a1", "b1", "b2", "a2", "a3", "a4"]


async def test_many_are_published_as_one_and_few_or_what_the_broker_does_not_take_so_one_by_one(
    box: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "BATCH", 50)
    told = [f"{'abc'[number % 3]}{number}" for number in range(100 + relay.TOGETHER)]
    broker = Broker(takes_batches=True)
    await box.record(*told)
    await box.relay(broker).publish_all()
    assert (broker.told, broker.batches, await box.waiting()) == (told, [50, 50, relay.TOGETHER], 0)
    await box.record(*told[1 : relay.TOGETHER])
    await box.relay(broker).publish_all()
    assert len(broker.batches) == 3
    broker.takes_batches = False
    await box.record(*told[: relay.TOGETHER])
    await box.relay(broker).publish_all()
    assert (broker.batches[3:], await box.waiting()) == ([relay.TOGETHER], 0)


async def test_a_backlog_is_drained_half_of_the_time_and_no_more(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "BATCH", 20)
    waits = 0.0

    async def after(_event: Event) -> None:
        nonlocal waits
        began = time.monotonic()
        await asyncio.sleep(0.005)
        waits += time.monotonic() - began

    await box.record(*(f"a{number}" for number in range(100)))
    began = time.monotonic()
    await box.relay(Broker(after=after, takes_batches=True)).publish_all()
    assert time.monotonic() - began >= 2 * waits


async def test_a_batch_without_an_answer_is_not_marked(box: Outbox) -> None:
    async def after(event: Event) -> None:
        if len(broker.stored) == relay.TOGETHER:
            raise BrokerUnavailable("no answer")

    broker = Broker(after=after, takes_batches=True)
    await box.record(*(f"a{number}" for number in range(relay.TOGETHER)))
    with pytest.raises(BrokerUnavailable):
        await box.relay(broker).publish_all()
    assert await box.waiting() == relay.TOGETHER


async def test_one_of_two_replicas_publishes_and_hears_of_what_the_other_commits(
    box: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that nothing is found by looking.
    monkeypatch.setattr(relay, "POLL_SECONDS", 60.0)
    one, other = Broker(), Broker()
    async with box.replica() as second, asyncio.TaskGroup() as running:
        leading = running.create_task(box.relay(one).run())
        await box.record("a1")
        await box.empty()
        following = running.create_task(box.relay(other, second).run())
        await box.record("b1")
        await box.record("a2", database=second)
        await box.empty()
        assert (sorted(one.told), other.told) == (["a1", "a2", "b1"], [])
        # Whoever listens no longer listens again.
        await box.superuser.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        await box.record("a3", database=second)
        await box.empty()
        assert one.told[-1] == "a3"
        leading.cancel()
        monkeypatch.setattr(relay, "POLL_SECONDS", 0.1)
        await box.record("a4", database=second)
        await box.empty()
        assert other.told == ["a4"]
        following.cancel()


async def test_what_was_published_long_ago_is_forgotten_in_small_steps(
    box: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_FORGET_BATCH", 2)
    await box.record(*(f"a{number}" for number in range(5)))
    await box.relay(Broker()).publish_all()
    await box.superuser.execute("UPDATE outbox SET published_at = published_at - interval '2 days'")
    await box.record("b1")
    await box.relay(Broker())._forget()
    assert [row["data"] for row in await box.superuser.fetch("SELECT data FROM outbox")] == [b"b1"]


@pytest.mark.parametrize(("ahead", "is_taken"), [("1 day", True), ("9 seconds", False)])
async def test_a_lease_of_a_clock_that_was_ahead_is_none(box: Outbox, ahead: str, is_taken: bool) -> None:
    set_until = "UPDATE outbox_lease SET holder = gen_random_uuid(), until = now() + $1::text::interval"
    await box.superuser.execute(set_until, ahead)
    async with box.database.connection() as connection:
        assert await outbox.take_lease(connection, uuid7(), relay.LEASE) is is_taken


async def test_the_service_changes_nothing_of_what_it_has_recorded(box: Outbox) -> None:
    async with box.database.connection() as connection:
        for statement in ("UPDATE outbox SET data = ''", "TRUNCATE outbox", "DELETE FROM outbox_lease"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_relays_that_are_killed_lose_nothing_and_keep_the_order(box: Outbox, tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    lost, disorder, repeated = await _killed(box, tmp_path / "published", seed, events=50 * KILLS, kills=KILLS)
    assert (lost, disorder) == ([], [])
    # They were killed where it matters.
    assert repeated > 0


async def test_a_relay_that_marks_before_it_publishes_is_found_out(box: Outbox, tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    lost: Sequence[str] = []
    # It may be killed where nothing is lost.
    for turn in range(5):
        if not lost:
            lost, _, _ = await _killed(box, tmp_path / f"published {turn}", seed + turn, 500, 10, "--marks-first")
    assert lost


async def _killed(
    box: Outbox, published: Path, seed: int, events: int, kills: int, *options: str
) -> tuple[Sequence[str], Sequence[str], int]:
    """What was never published, what was told before what had happened before it, and how many were told again."""
    script = str(Path(killed_relays.__file__))
    arguments = [box.url, str(published), "--seed", str(seed), "--kills", str(kills), *options]
    relays = await asyncio.create_subprocess_exec(sys.executable, script, *arguments)
    writers = [asyncio.create_task(_write(box, random.Random(seed + n), str(n), events // 4)) for n in range(4)]
    written = [told for writer in writers for told in await writer]
    assert await asyncio.wait_for(relays.wait(), 120) == 0
    told = (await asyncio.to_thread(published.read_text, encoding="utf-8")).splitlines()
    seen: dict[str, int] = defaultdict(int)
    disorder = []
    for line in dict.fromkeys(told):
        subject, number = line.split()
        if int(number) != seen[subject]:
            disorder.append(line)
        seen[subject] += 1
    return sorted(set(written) - set(told)), disorder, len(told) - len(set(told))


async def _write(box: Outbox, rng: random.Random, name: str, count: int) -> list[str]:
    """Record so many events of forty subjects that nobody else changes, in transactions of which some take their time."""
    counts: dict[str, int] = defaultdict(int)
    written: list[str] = []
    while len(written) < count:
        events = []
        for _ in range(min(rng.randrange(1, 20), count - len(written))):
            subject = f"{name}-{rng.randrange(40)}"
            told = f"{subject} {counts[subject]}"
            counts[subject] += 1
            written.append(told)
            events.append(replace(event_of("x"), id=uuid7(), subject=f"order/{subject}", data=told.encode()))
        async with box.database.transaction() as transaction:
            await outbox.write(transaction, events)
            await asyncio.sleep(rng.choice((0, 0, 0.02)))
    return written


async def test_a_relay_whose_connections_are_cut_goes_on(box: Outbox) -> None:
    broker = Broker()
    running = asyncio.create_task(box.relay(broker).run())
    await box.record("a1")
    await box.empty()
    await box.superuser.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    async with asyncio.timeout(20):
        while broker.told != ["a1", "a2"]:
            try:
                if await box.waiting() == 0 and len(broker.told) == 1:
                    await box.record("a2")
            except (ServiceError, asyncpg.PostgresError):
                pass
            await asyncio.sleep(0.05)
    assert not running.done()
    running.cancel()
