"""What an operator sees and does at the broker of a stack: streams, events as they come, dead letters."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
from chassis.events import envelope, subjects
from chassis.events.event import Event
from chassis.events.nats import MESSAGE_ID, connection
from chassis.events.publisher import BrokerUnavailable
from google.protobuf import json_format, symbol_database
from google.protobuf.message import DecodeError
from mesh import broker as declared
from mesh.topology import OPERATORS
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import RawStreamMsg
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

from devstack import broker
from devstack.layout import Layout

_REQUEST_SECONDS = 5.0
_NOT_FOUND = 404


class _State(msgspec.Struct, frozen=True):
    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0
    first_ts: str = ""


class _StreamInfo(msgspec.Struct, frozen=True):
    state: _State = _State()


class _Error(msgspec.Struct, frozen=True):
    code: int = 0
    description: str = ""


class _Answer(msgspec.Struct, frozen=True):
    error: _Error | None = None


class _ConsumerInfo(msgspec.Struct, frozen=True):
    num_pending: int = 0
    num_ack_pending: int = 0
    num_redelivered: int = 0


@dataclass(frozen=True, slots=True)
class StreamNow:
    """A stream: how much is in it, how much may be, and since when the oldest has been."""

    name: str
    messages: int
    bytes: int
    max_bytes: int
    oldest: str


@dataclass(frozen=True, slots=True)
class ConsumerNow:
    """A consumer: events that nobody has begun, that it has in hand, and that it was given more than once."""

    name: str
    waiting: int
    in_hand: int
    given_again: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a consumer has given up.

    Attributes:
        number: its place in the stream, by which it is shown, replayed and dropped.
        consumer: who has given it up. The broker lets nobody else publish there.
        headers: its own, and those that say what has failed (`dead-…`).
    """

    number: int
    consumer: str
    headers: Mapping[str, str]
    data: bytes

    @property
    def event_type(self) -> str:
        """Of what type it is; empty when it is no event."""
        return self.headers.get("ce-type", "")


class NoSuchLetterError(Exception):
    """There is no dead letter of that number."""


class NoConsumerError(Exception):
    """Who has given an event up consumes no more: given once more it would be lost."""


class _NotThereError(BrokerUnavailable):
    """The broker has no such stream or consumer."""


@asynccontextmanager
async def operating(layout: Layout) -> AsyncIterator[Operator]:
    """The operators' connection.

    Raises:
        BrokerUnavailable: the broker cannot be reached, or does not do what it is asked.
    """
    try:
        async with connection(broker.url(layout), layout.certificates / OPERATORS, OPERATORS) as client:
            yield Operator(client)
    except (NatsError, OSError) as error:
        raise BrokerUnavailable(str(error) or type(error).__name__) from error


class Operator:
    """See `operating`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stream = JetStreamContext(client)

    async def streams(self) -> list[StreamNow]:
        """The streams, as they are now."""
        found = []
        for stream in declared.STREAMS:
            state = msgspec.json.decode(await self._ask(f"STREAM.INFO.{stream.name}"), type=_StreamInfo).state
            oldest = state.first_ts if state.messages else ""
            found.append(StreamNow(stream.name, state.messages, state.bytes, stream.max_bytes, oldest))
        return found

    async def consumers(self) -> list[ConsumerNow]:
        """The consumers, as they are now."""
        found = []
        for consumer in declared.consumers():
            answer = await self._ask(f"CONSUMER.INFO.{subjects.EVENTS}.{consumer.service}")
            info = msgspec.json.decode(answer, type=_ConsumerInfo)
            found.append(ConsumerNow(consumer.service, info.num_pending, info.num_ack_pending, info.num_redelivered))
        return found

    async def tail(self, event_type: str) -> AsyncIterator[Event]:
        """Events as they are published from now on; those of one type, or with `order.v1.*` of a package.

        Raises:
            BrokerUnavailable: the connection was lost.
        """
        subscription = await self._client.subscribe(subjects.of_type(event_type or ">"))
        await self._client.flush()
        async for message in subscription.messages:
            try:
                yield envelope.event(message.headers or {}, message.data)
            except envelope.UnreadableEventError:
                # A stranger's; a consumer makes a dead letter of it.
                continue
        raise BrokerUnavailable("the connection was lost")

    async def dead_letters(self) -> list[DeadLetter]:
        """All of them, the oldest first."""
        found: list[DeadLetter] = []
        answer = await self._ask(f"STREAM.INFO.{subjects.DEAD_LETTERS}")
        state = msgspec.json.decode(answer, type=_StreamInfo).state
        number = state.first_seq
        while len(found) < state.messages:
            try:
                message = await self._stream.get_msg(subjects.DEAD_LETTERS, number, subject=">", next=True)
            except NotFoundError:
                break
            number = (message.seq or number) + 1
            found.append(_letter(number - 1, message))
        return found

    async def dead_letter(self, number: int) -> DeadLetter:
        """One of them.

        Raises:
            NoSuchLetterError: there is none of this number.
        """
        try:
            message = await self._stream.get_msg(subjects.DEAD_LETTERS, number)
        except NotFoundError:
            raise NoSuchLetterError(f"there is no dead letter {number}") from None
        return _letter(number, message)

    async def replay(self, letter: DeadLetter) -> None:
        """Give it to its consumer once more, and to no other, and remove it. Its inbox knows what has been done already.

        Raises:
            NoConsumerError: there is no such consumer.
        """
        try:
            await self._ask(f"CONSUMER.INFO.{subjects.EVENTS}.{letter.consumer}")
        except _NotThereError:
            raise NoConsumerError(
                f"{letter.consumer} consumes no more, and nobody would be given dead letter {letter.number}"
            ) from None
        headers = {name: value for name, value in letter.headers.items() if not name.startswith(("dead-", "Nats-"))}
        await self._stream.publish(
            subjects.of_replays(letter.consumer),
            letter.data,
            timeout=_REQUEST_SECONDS,
            headers=headers | {MESSAGE_ID: f"replay.{letter.number}"},
        )
        await self.drop(letter)

    async def drop(self, letter: DeadLetter) -> None:
        """Remove it for good."""
        await self._stream.delete_msg(subjects.DEAD_LETTERS, letter.number)

    async def _ask(self, what: str) -> bytes:
        answer: Msg = await self._client.request(f"$JS.API.{what}", b"", timeout=_REQUEST_SECONDS)
        if (error := msgspec.json.decode(answer.data, type=_Answer).error) is not None:
            raise (_NotThereError if error.code == _NOT_FOUND else BrokerUnavailable)(error.description)
        return answer.data


def _letter(number: int, message: RawStreamMsg) -> DeadLetter:
    consumer = (message.subject or "").removeprefix(subjects.of_dead_letters(""))
    # What is not ASCII the client does not make text of.
    headers = {name: str(value) for name, value in (message.headers or {}).items()}
    return DeadLetter(number, consumer, headers, message.data or b"")


def shown(event_type: str, data: bytes) -> object:
    """The data of an event as JSON has it; its bytes in hexadecimal when no contract here knows it."""
    package, _, _ = event_type.rpartition(".")
    try:
        importlib.import_module(f"contracts.{package}.events_pb2")
        kind = symbol_database.Default().GetSymbol(event_type)
        return json.loads(json_format.MessageToJson(kind.FromString(data), preserving_proto_field_name=True))
    except (ImportError, KeyError, ValueError, DecodeError):
        return data.hex()


async def first(events: AsyncIterator[Event], count: int) -> AsyncIterator[Event]:
    """Some events, and then no more; all of them for 0."""
    left = count
    async for event in events:
        yield event
        left -= 1
        if left == 0:
            return
        await asyncio.sleep(0)
