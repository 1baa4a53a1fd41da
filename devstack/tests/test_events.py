"""What an operator sees and does at the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import brokers
import pytest
from chassis.events import subjects
from chassis.events.consumer import Delivery
from chassis.events.event import Event
from chassis.events.nats import Nats
from chassis.events.nats_consumer import NatsConsumer
from chassis.events.publisher import BrokerUnavailable
from chassis.ids import uuid7
from devstack.commands import stack
from devstack.events import NoConsumerError, NoSuchLetterError, first, operating, shown
from mesh.topology import SERVICES
from rich.table import Table

CONSUMER = replace(SERVICES[0], name="listener", consumes=("order.v1.OrderPlaced",))
OTHER = replace(SERVICES[0], name="another", consumes=("order.v1.OrderPlaced",))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[brokers.Server]:
    async with brokers.running(tmp_path / "broker", (*SERVICES, CONSUMER, OTHER)) as server:
        yield server


def event(number: int) -> Event:
    return Event(
        id=uuid7(),
        source="order",
        type="order.v1.OrderPlaced",
        subject=f"order/{number}",
        time=datetime.now(UTC),
        dataschema="order/v1/events.proto",
        traceparent="",
        data=bytes([number]),
    )


async def give_up(listener: Nats, count: int) -> NatsConsumer:
    """Have the listener give up some events."""
    source = NatsConsumer(listener, "listener")
    given: list[Delivery] = []
    async with asyncio.timeout(30):
        while len(given) < count:
            given += await source.pull(count)
    for delivery in given:
        await source.bury(delivery, {"dead-consumer": "listener", "dead-error": "ValueError: no", "dead-attempts": "4"})
        await source.acknowledge(delivery)
    return source


async def test_a_dead_letter_is_given_once_more_to_who_gave_it_up_and_to_nobody_else(server: brokers.Server) -> None:
    async with (
        server.client("order") as order,
        server.client("listener") as listener,
        server.client("another") as another,
        operating(server.layout) as operator,
    ):
        told = [event(number) for number in range(3)]
        for one in told:
            await order.publish(one)
        source = await give_up(listener, 3)
        theirs = NatsConsumer(another, "another")
        assert len(await all_of(theirs, 3)) == 3
        letters = await operator.dead_letters()
        assert [letter.headers["ce-id"] for letter in letters] == [str(one.id) for one in told]
        await operator.replay(letters[1])
        (again,) = await all_of(source, 1)
        assert (again.headers["ce-id"], again.data) == (str(told[1].id), told[1].data)
        assert not any(name.startswith("dead-") for name in again.headers)
        assert not await theirs.pull(1)
        await operator.drop(letters[0])
        assert [letter.number for letter in await operator.dead_letters()] == [letters[2].number]
        with pytest.raises(NoSuchLetterError):
            await operator.dead_letter(letters[0].number)


async def test_a_dead_letter_of_who_consumes_no_more_stays(server: brokers.Server) -> None:
    async with (
        server.client("order") as order,
        server.client("listener") as listener,
        operating(server.layout) as operator,
    ):
        await order.publish(event(1))
        await give_up(listener, 1)
        (letter,) = await operator.dead_letters()
        await operator._ask(f"CONSUMER.DELETE.{subjects.EVENTS}.listener")
        with pytest.raises(NoConsumerError, match="listener consumes no more"):
            await operator.replay(letter)
        assert await operator.dead_letters() == [letter]
        await operator.drop(letter)
        assert await operator.dead_letters() == []


async def test_of_whom_a_dead_letter_is_says_its_subject(server: brokers.Server) -> None:
    """Each consumer may publish its own, with whatever headers it likes."""
    async with server.client("listener") as listener, operating(server.layout) as operator:
        await listener.store(subjects.of_dead_letters("listener"), b"", {"dead-consumer": "another"})
        (letter,) = await operator.dead_letters()
    assert letter.consumer == "listener"


async def test_a_stream_or_a_consumer_that_is_not_there_is_no_empty_one(server: brokers.Server) -> None:
    async with operating(server.layout) as operator:
        await operator._ask(f"CONSUMER.DELETE.{subjects.EVENTS}.notification")
        with pytest.raises(BrokerUnavailable, match="consumer not found"):
            await operator.consumers()
        await operator._ask(f"STREAM.DELETE.{subjects.DEAD_LETTERS}")
        for ask in (operator.dead_letters, operator.streams):
            with pytest.raises(BrokerUnavailable, match="stream not found"):
                await ask()


@pytest.mark.parametrize("event_type", ["order.v1.OrderPlaced", "order.v1.Nothing", "..", "", "a\x00b.c", "os.path"])
def test_what_cannot_be_read_is_shown_as_it_is(event_type: str) -> None:
    assert shown(event_type, b"\xff\xff") == "ffff"


async def all_of(source: NatsConsumer, count: int) -> list[Delivery]:
    found: list[Delivery] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            for delivery in await source.pull(count - len(found)):
                await source.acknowledge(delivery)
                found.append(delivery)
    return found


async def test_who_watches_sees_events_as_they_are_published_and_keeps_none(server: brokers.Server) -> None:
    async with server.client("order") as order, operating(server.layout) as operator:
        seen: list[Event] = []

        async def watch() -> None:
            seen.extend([one async for one in first(operator.tail("order.v1.*"), 2)])

        watching = asyncio.create_task(watch())
        told = [event(1)]
        await order.publish(told[0])
        async with asyncio.timeout(30):
            while not watching.done():
                told.append(event(len(told)))
                await order.publish(told[-1])
                await asyncio.sleep(0.05)
        assert seen == told[told.index(seen[0]) :][:2]
        streams = {stream.name: stream.messages for stream in await operator.streams()}
    assert streams == {"events": len(told), "dead_letters": 0}


async def test_who_watches_is_told_that_the_broker_is_gone(server: brokers.Server) -> None:
    with pytest.raises(BrokerUnavailable):
        async with operating(server.layout) as operator:
            watching = asyncio.ensure_future(anext(aiter(operator.tail(""))))
            await asyncio.sleep(0.3)
            await server.kill()
            async with asyncio.timeout(10):
                await watching


async def test_who_watches_is_told_when_a_message_ends_what_the_client_hears(server: brokers.Server) -> None:
    with pytest.raises(BrokerUnavailable):
        async with server.client("order") as order, operating(server.layout) as operator:
            watching = asyncio.ensure_future(anext(aiter(operator.tail(""))))
            await asyncio.sleep(0.3)
            await order.connected()._send_command(b"HPUB events.order.v1.OrderPlaced 7 7\r\ngarbage\r\n")
            await order.connected().flush()
            async with asyncio.timeout(60):
                await watching


def test_what_is_shown_of_events_is_neither_markup_nor_acts_on_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = Table("error", box=None)
    table.add_row("KeyError: 'path [/orders] is [id] \x1b[2J'")
    stack.console.print(table)
    stack.console.print("no process '[/b]' :smile: \x1b]0;owned")
    written = capsys.readouterr().out
    assert "path [/orders] is [id] \\x1b[2J" in written
    assert "no process '[/b]' :smile: \\x1b]0;owned" in written
