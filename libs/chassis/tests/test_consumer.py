"""Acting on events once and in order, on a real broker and a real PostgreSQL, whatever is killed."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import brokers
import listening
import pytest
from chassis.database import Connection, Database
from chassis.errors import ServiceError
from chassis.events import consumer as consuming
from chassis.events import envelope, limits, nats
from chassis.events.consumer import Consumer, Handles
from chassis.events.event import Event
from chassis.events.nats import Nats, connection
from chassis.events.nats_consumer import NatsConsumer
from chassis.events.publisher import BrokerUnavailable
from chassis.ids import uuid7
from devstack.layout import ROOT
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from mesh.topology import OPERATORS, SERVICES

from conftest import Platform
from devstack import postgres

NUMBER, TEXT = Int64Value.DESCRIPTOR.full_name, StringValue.DESCRIPTOR.full_name
TELLER = replace(SERVICES[0], name="teller", publishes=("google.protobuf",))
LISTENER = replace(SERVICES[0], name=listening.NAME, consumes=(NUMBER, TEXT))


def event(subject: str, number: int, data: bytes | None = None, event_type: str = NUMBER) -> Event:
    return Event(
        id=uuid7(),
        source="teller",
        type=event_type,
        subject=subject,
        time=datetime.now(UTC),
        dataschema="test",
        traceparent=f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
        data=Int64Value(value=number).SerializeToString() if data is None else data,
    )


@dataclass
class Place:
    """A broker, a database with an inbox, and somebody who tells events."""

    server: brokers.Server
    url: str
    database: Database
    teller: Nats
    seen: list[tuple[str, int]] = field(default_factory=list)

    async def tell(self, *events: Event) -> None:
        for one in events:
            while True:
                try:
                    await self.teller.publish(one)
                except BrokerUnavailable:
                    await asyncio.sleep(0.05)
                else:
                    break

    async def effects(self) -> list[tuple[str, int]]:
        async with self.database.connection() as rows:
            found = await rows.fetch("SELECT subject, number FROM effects ORDER BY at")
        return [(row["subject"], row["number"]) for row in found]

    @asynccontextmanager
    async def consumer(self, handler: consuming.Handler[Int64Value] | None = None) -> AsyncIterator[Consumer]:
        async with self.server.client(listening.NAME) as broker:
            made = Consumer(
                listening.NAME,
                NatsConsumer(broker, listening.NAME),
                self.database,
                [Handles(Int64Value, handler or listening.Note())],
                listening.QUICK,
            )
            running = asyncio.create_task(made.run())
            try:
                yield made
            finally:
                running.cancel()
                await asyncio.wait([running])
        assert running.cancelled(), running.exception()

    async def dead(self) -> list[dict[str, str]]:
        """The headers of the dead letters."""
        async with connection(self.server.url, self.server.certificates_of(OPERATORS), OPERATORS) as client:
            stream = client.jetstream()
            count = (await stream.stream_info("dead_letters")).state.messages
            found = [await stream.get_msg("dead_letters", seq=number + 1) for number in range(count)]
        return [dict(message.headers or {}) for message in found]


@pytest.fixture
async def place(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(limits, "ACK_SECONDS", listening.PATIENCE)
    name = f"test_{secrets.token_hex(6)}"
    server = await platform.database("postgres")
    await server.execute(f"CREATE DATABASE {name}")
    made = await platform.database(name)
    await made.execute(listening.SCHEMA)
    await made.close()
    url = postgres.superuser_url(platform.layout, platform.secrets, name)
    database = Database(url, min_size=1, max_size=8, service="test")
    await database.open()
    try:
        async with (
            brokers.running(tmp_path / "broker", (*SERVICES, TELLER, LISTENER)) as broker,
            broker.client("teller") as teller,
        ):
            yield Place(broker, url, database, teller)
    finally:
        await database.close()
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()


async def until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.02)


def in_order(effects: list[tuple[str, int]], expected: dict[str, list[int]]) -> bool:
    """Whether each effect happened once, and those of each subject in their order."""
    found: dict[str, list[int]] = {subject: [] for subject in expected}
    for subject, number in effects:
        found[subject].append(number)
    return found == expected


async def test_events_are_acted_on_once_and_in_order(place: Place) -> None:
    subjects = {f"order/{name}": list(range(20)) for name in range(5)}
    before = consuming.HANDLED.count("handled")
    async with place.consumer():
        for number in range(20):
            same = [event(subject, number) for subject in subjects]
            await place.tell(*same, *same[:1])
        await until(lambda: consuming.HANDLED.count("handled") == before + 100)
    assert in_order(await place.effects(), subjects)


class Failing:
    """Notes, but fails first."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error = error
        self.left = times
        self.began: list[tuple[str, int]] = []

    async def __call__(self, message: Int64Value, event: Event, connection: Connection) -> None:
        self.began.append((event.subject, message.value))
        await listening.Note()(message, event, connection)
        if event.subject == "order/bad" and message.value == 0 and self.left:
            self.left -= 1
            raise self.error


async def test_an_event_that_fails_is_tried_again_and_only_its_own_subject_waits(place: Place) -> None:
    handler = Failing(ValueError("not yet"), 3)
    before = consuming.HANDLED.count("handled")
    async with place.consumer(handler):
        await place.tell(event("order/bad", 0), event("order/bad", 1), event("order/good", 0))
        await until(lambda: consuming.HANDLED.count("handled") == before + 3)
    assert handler.began.count(("order/bad", 0)) == 4
    # What failed left nothing, and others did not wait for it.
    assert await place.effects() == [("order/good", 0), ("order/bad", 0), ("order/bad", 1)]
    assert await place.dead() == []


async def test_an_event_that_goes_on_failing_is_a_dead_letter_and_its_subject_goes_on(place: Place) -> None:
    handler = Failing(ValueError("never"), 1000)
    bad = event("order/bad", 0)
    before = consuming.HANDLED.count("handled")
    async with place.consumer(handler):
        await place.tell(bad, event("order/bad", 1))
        await until(lambda: consuming.HANDLED.count("handled") == before + 1)
    assert await place.effects() == [("order/bad", 1)]
    (letter,) = await place.dead()
    assert letter["ce-id"] == str(bad.id)
    assert letter["ce-traceparent"] == bad.traceparent
    assert (letter["dead-consumer"], letter["dead-attempts"]) == (listening.NAME, "4")
    assert letter["dead-error"] == "ValueError: never"
    assert letter["dead-subject"] == f"events.{NUMBER}"


async def test_what_cannot_be_read_is_a_dead_letter_at_once_and_unknown_types_are_counted(place: Place) -> None:
    before = consuming.HANDLED.count("handled")
    unknown = consuming.HANDLED.count("unknown type")
    async with place.consumer():
        await place.tell(event("order/1", 0, b"\xff\xff"), event("order/1", 0, event_type=TEXT))
        await place.teller.store(f"events.{NUMBER}", b"", {"ce-id": "none"})
        await place.tell(event("order/1", 1))
        await until(lambda: consuming.HANDLED.count("handled") == before + 1)
        await until(lambda: consuming.HANDLED.count("unknown type") == unknown + 1)
    assert await place.effects() == [("order/1", 1)]
    errors = sorted(letter["dead-error"] for letter in await place.dead())
    assert errors == ["it has no header ce-specversion", f"its data is no {NUMBER}"]


async def test_nobody_tells_an_event_of_a_type_that_is_not_theirs(place: Place) -> None:
    """The broker lets a service publish on the subjects of its own types; of what type an event is, its headers say."""
    before = consuming.HANDLED.count("handled")
    forged = event("order/1", 0)
    async with place.consumer():
        await place.teller.store(f"events.{TEXT}", forged.data, envelope.headers(forged))
        await place.tell(event("order/1", 1))
        await until(lambda: consuming.HANDLED.count("handled") == before + 1)
    assert await place.effects() == [("order/1", 1)]
    (letter,) = await place.dead()
    assert (letter["dead-error"], letter["dead-subject"]) == (
        "it is of another type than its subject",
        f"events.{TEXT}",
    )


async def test_whatever_an_error_says_its_event_is_a_dead_letter(place: Place) -> None:
    handler = Failing(ValueError("half a character \ud800, a \x00\r\n\x85 and \U0010ffff" * 200), 1000)
    before = consuming.HANDLED.count("handled")
    async with place.consumer(handler):
        await place.tell(event("order/bad", 0), event("order/bad", 1))
        await until(lambda: consuming.HANDLED.count("handled") == before + 1)
    assert await place.effects() == [("order/bad", 1)]
    (letter,) = await place.dead()
    assert letter["dead-error"].startswith("ValueError: half a character \\ud800, a ")


async def test_no_message_whatever_it_is_keeps_a_consumer_from_the_others(place: Place) -> None:
    subject, readable = f"events.{NUMBER}", envelope.headers(event("order/1", 0))
    whole = b"x" * (limits.MAX_EVENT_BYTES - nats.size(b"", {"ce-id": "none"}))
    async with place.consumer():
        teller = place.teller.connected()
        await place.teller.store(subject, b"", readable | {"ce-time": "0001-01-01T00:00:00+14:00"})
        await place.teller.store(subject, whole, {"ce-id": "none"})
        # Headers that the client would not send, and none at all.
        for headers in (
            b"NATS/1.0\r\nno name : x\r\n\r\n",
            b"garbage",
            "NATS/1.0\r\nce-id: ü\r\n\r\n".encode(),
            b"NATS/1.0\r\nce-id: \xff\r\n\r\n",
        ):
            size = len(headers)
            await teller._send_command(b"HPUB %s %d %d\r\n%s\r\n" % (subject.encode(), size, size, headers))
        await teller.publish(subject, b"")
        # What the broker says in its own name, said by somebody else.
        for number, status in enumerate(("100", "404", "423")):
            data = Int64Value(value=number).SerializeToString()
            await place.teller.store(subject, data, envelope.headers(event("order/1", number)) | {"Status": status})
        async with asyncio.timeout(30):
            while await place.effects() != [("order/1", number) for number in range(3)] or len(await place.dead()) < 7:
                await asyncio.sleep(0.05)


class Deadly:
    """Ends its process, as far as anybody else can see, whenever it begins an event of one subject; notes all others."""

    def __init__(self) -> None:
        self.dies = asyncio.Event()
        self.most_at_once = self._at_once = 0

    async def __call__(self, message: Int64Value, event: Event, connection: Connection) -> None:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if event.subject == "order/deadly":
                self.dies.set()
                await asyncio.Event().wait()
            await asyncio.sleep(0.01)
            await listening.Note()(message, event, connection)
        finally:
            self._at_once -= 1


async def test_of_an_event_that_ends_every_process_no_other_is_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "MOST_TOGETHER", 2)
    monkeypatch.setattr(consuming, "MOST_DELIVERIES", 5)
    subjects = {f"order/{name}": [0, 1] for name in range(10)}
    for number in range(2):
        await place.tell(*(event(subject, number) for subject in subjects))
        await place.tell(event("order/deadly", number))
    at_once: list[int] = []
    async with asyncio.timeout(60):
        while len(await place.effects()) < 20 or len(await place.dead()) < 2:
            handler = Deadly()
            async with place.consumer(handler):
                dies = asyncio.create_task(handler.dies.wait())
                await asyncio.wait([dies], timeout=1.5)
                dies.cancel()
            at_once.append(handler.most_at_once)
    assert in_order(await place.effects(), subjects)
    assert [letter["dead-subject"] for letter in await place.dead()] == ["events.google.protobuf.Int64Value"] * 2
    # The first lives began with several; those that may be what ends a process, and all before them, were begun alone.
    assert at_once[0] > 1
    assert 1 in at_once


async def test_what_waits_for_something_that_is_down_is_no_dead_letter(place: Place) -> None:
    handler = Failing(ServiceError("UNAVAILABLE"), 3 * listening.QUICK.attempts)
    before = consuming.HANDLED.count("handled")
    async with place.consumer(handler):
        await place.tell(event("order/bad", 0))
        await until(lambda: consuming.HANDLED.count("handled") == before + 1)
    assert await place.effects() == [("order/bad", 0)]
    assert await place.dead() == []


class Slow:
    """Takes longer than the broker's patience."""

    def __init__(self) -> None:
        self.began = 0

    async def __call__(self, message: Int64Value, event: Event, connection: Connection) -> None:
        self.began += 1
        await listening.Note()(message, event, connection)
        await asyncio.sleep(2.5 * listening.PATIENCE)


async def test_an_event_that_takes_long_is_not_given_to_anybody_else(place: Place) -> None:
    handler = Slow()
    given_again = consuming.REDELIVERED.count()
    before = consuming.HANDLED.count("handled")
    async with place.consumer(handler):
        await place.tell(event("order/1", 0))
        await until(lambda: consuming.HANDLED.count("handled") == before + 1)
    assert (handler.began, consuming.REDELIVERED.count()) == (1, given_again)


async def test_who_takes_over_waits_for_what_the_other_had_in_hand_and_begins_with_nothing_later(place: Place) -> None:
    never = asyncio.Event()
    begun: list[int] = []

    async def hang(message: Int64Value, event: Event, connection: Connection) -> None:
        begun.append(message.value)
        await never.wait()

    async with place.consumer(hang) as first:
        await place.tell(*(event("order/1", number) for number in range(3)))
        await until(lambda: begun == [0] and len(first._held) == 3)
        async with place.consumer() as other:
            # Not its turn: one process at a time.
            await place.tell(event("order/2", 0))
            await until(lambda: begun == [0, 0])
            assert not other._held
        # As when it is killed: nobody says anything of what it had, and it is no more the one that is given events.
        first._give_back = first._source.leave  # type: ignore[method-assign]
    # New to the broker, which gives these before it knows that the others are lost.
    await place.tell(*(event("order/1", number) for number in range(3, 6)))
    expected = {"order/1": list(range(6)), "order/2": [0]}
    async with place.consumer(), asyncio.timeout(60):
        while not in_order(effects := await place.effects(), expected):
            assert len(effects) < 7, effects
            await asyncio.sleep(0.05)


async def test_a_broker_that_is_killed_again_and_again_changes_nothing(place: Place) -> None:
    subjects = {f"order/{name}": list(range(40)) for name in range(4)}
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    async with place.consumer():

        async def tell(subject: str) -> None:
            await place.tell(*(event(subject, number) for number in range(40)))

        telling = [asyncio.create_task(tell(subject)) for subject in subjects]
        for _ in range(4):
            await asyncio.sleep(chance.uniform(0.01, 0.3))
            await place.server.kill()
            await place.server.start()
        async with asyncio.timeout(60):
            await asyncio.gather(*telling)
            while len(await place.effects()) < 160:
                await asyncio.sleep(0.05)
    assert in_order(await place.effects(), subjects)


async def lives(place: Place, subjects: dict[str, list[int]], *, seed: int, kills: int, hasty: bool) -> int:
    """Let a consumer live and be killed until everything is done; how often it was killed."""
    life = listening.Life(
        url=place.server.url,
        certificates=str(place.server.certificates_of(listening.NAME)),
        database=place.url,
        expected=sum(map(len, subjects.values())),
        seed=seed,
        kills=kills,
        hasty=hasty,
    )
    for number in range(max(map(len, subjects.values()))):
        await place.tell(*(event(subject, number) for subject in subjects))
    command = [sys.executable, str(ROOT / "tests" / "listening.py"), json.dumps(asdict(life))]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(120):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.communicate()
    told = json.loads(output.splitlines()[-1])
    assert told["status"] == 0
    return int(told["killed"])


async def test_a_consumer_that_is_killed_at_any_step_acts_on_each_event_once_and_in_order(place: Place) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    subjects = {f"order/{name}": list(range(25)) for name in range(6)}
    assert await lives(place, subjects, seed=seed, kills=6, hasty=False) == 6
    assert in_order(await place.effects(), subjects)
    assert await place.dead() == []


async def test_a_consumer_that_acknowledges_before_it_commits_is_found_out(place: Place) -> None:
    subjects = {f"order/{name}": list(range(25)) for name in range(6)}
    await lives(place, subjects, seed=1, kills=6, hasty=True)
    assert not in_order(await place.effects(), subjects)
