"""A durable JetStream consumer, as `consumer.Source`: pulled, and by one process at a time.

The pull request is JetStream's own (docs.nats.io, "JetStream wire API" and "priority groups"): the client's `fetch` knows
nothing of pinned consumers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from uuid import uuid4

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import BadHeaderError
from nats.errors import Error as NatsError

from chassis.cancellation import heed_cancellation
from chassis.events import limits, subjects
from chassis.events.consumer import Backlog, Delivery
from chassis.events.nats import MESSAGE_ID, Nats
from chassis.events.publisher import BrokerUnavailable

_SECOND = 1_000_000_000
# How long a request for events stays with the broker; and how often it says meanwhile that it still has it.
_REQUEST_SECONDS = 5
_HEARTBEAT_SECONDS = 1
# Without such a word for so long, the broker has lost the request.
_SILENCE_SECONDS = 2.5
_ANSWER_SECONDS = 2.0
# Until somebody else may have what is given back.
_GIVE_BACK_SECONDS = 0.1
_PIN, _STATUS = "Nats-Pin-Id", "Status"
_HEARTBEAT, _NOT_PINNED = "100", "423"
# Where it is told what has become of an event. The broker's own messages have no such answer; an event may have any header.
_OF_AN_EVENT = "$JS.ACK."


class _State(msgspec.Struct, frozen=True):
    subjects: dict[str, int] = {}


class _Stream(msgspec.Struct, frozen=True):
    state: _State = _State()


class _Info(msgspec.Struct, frozen=True):
    num_pending: int = 0
    num_ack_pending: int = 0


class NatsConsumer:
    """See `consumer.Source`.

    Args:
        broker: the process's connection.
        name: the consumer's, and the service's.
        group: the consumer's only priority group.
    """

    def __init__(self, broker: Nats, name: str, group: str = "one") -> None:
        self.taken_over = 0
        self.patience = limits.ACK_SECONDS
        self._broker = broker
        self._name = name
        self._group = group
        self._pin = ""
        self._client: Client | None = None
        self._subscription: Subscription | None = None
        self._inbox = ""
        # Events that the broker may still give us for the last request.
        self._due = 0

    async def pull(self, most: int) -> Sequence[Delivery]:
        """See `Source`."""
        try:
            subscription = await self._subscribed()
            if self._due == 0:
                await self._ask(most)
            return await self._received(subscription)
        except (NatsError, OSError) as error:
            self._due = 0
            # Of a cancellation in the moment in which its connection ends, the client makes an error of its own.
            heed_cancellation()
            raise BrokerUnavailable(str(error) or type(error).__name__) from error

    async def _subscribed(self) -> Subscription:
        client = self._broker.connected()
        if self._subscription is None or self._client is not client:
            self._client, self._due = client, 0
            self._inbox = f"{subjects.inbox(self._name)}.{uuid4().hex}"
            self._subscription = await client.subscribe(self._inbox)
        return self._subscription

    async def _ask(self, most: int) -> None:
        request = {
            "batch": most,
            "expires": _REQUEST_SECONDS * _SECOND,
            "idle_heartbeat": _HEARTBEAT_SECONDS * _SECOND,
            "group": self._group,
            **({"id": self._pin} if self._pin else {}),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.EVENTS}.{self._name}"
        await self._broker.connected().publish(subject, json.dumps(request).encode(), reply=self._inbox)
        self._due = most

    async def _received(self, subscription: Subscription) -> list[Delivery]:
        found: list[Delivery] = []
        while self._due and (not found or subscription.pending_msgs):
            try:
                message = await subscription.next_msg(timeout=_SILENCE_SECONDS)
            except TimeoutError:
                self._due = 0
                break
            if message.reply.startswith(_OF_AN_EVENT):
                self._due -= 1
                found.append(self._delivery(message))
            elif (status := (message.headers or {}).get(_STATUS)) != _HEARTBEAT:
                # The request has ended: nothing came in its time, or another process has the consumer.
                self._due = 0
                if status == _NOT_PINNED:
                    self._pin = ""
        return found

    def _delivery(self, message: Msg) -> Delivery:
        headers = message.headers or {}
        pin = headers.get(_PIN, "")
        if pin != self._pin:
            self._pin = pin
            self.taken_over += 1
        metadata = message.metadata
        return Delivery(
            sequence=metadata.sequence.stream,
            times=metadata.num_delivered or 1,
            subject=message.subject,
            token=message.reply,
            headers=headers,
            data=message.data,
        )

    async def acknowledge(self, delivery: Delivery) -> None:
        """See `Source`."""
        await self._say(delivery, b"+ACK")

    async def extend(self, delivery: Delivery) -> None:
        """See `Source`."""
        await self._say(delivery, b"+WPI")

    async def give_back(self, delivery: Delivery) -> None:
        """See `Source`."""
        delay = {"delay": int(_GIVE_BACK_SECONDS * _SECOND)}
        await self._say(delivery, b"-NAK " + json.dumps(delay).encode())

    async def bury(self, delivery: Delivery, why: Mapping[str, str]) -> None:
        """See `Source`."""
        kept = {name: value for name, value in delivery.headers.items() if not name.startswith("Nats-")}
        own = {**why, "dead-subject": delivery.subject, MESSAGE_ID: f"{self._name}.{delivery.sequence}"}
        subject = subjects.of_dead_letters(self._name)
        try:
            await self._broker.store(subject, delivery.data, {**kept, **own})
        except (BadHeaderError, UnicodeError):
            # The broker takes headers that its client does not. Of such a message what has failed, and its data, are kept.
            await self._broker.store(subject, delivery.data, own)

    async def backlog(self) -> Backlog:
        """See `Source`."""
        answer = await self._answer(f"$JS.API.CONSUMER.INFO.{subjects.EVENTS}.{self._name}")
        info = msgspec.json.decode(answer, type=_Info)
        return Backlog(info.num_pending, info.num_ack_pending)

    async def dead_letters(self) -> int:
        """See `Source`."""
        subject = subjects.of_dead_letters(self._name)
        asked = json.dumps({"subjects_filter": subject}).encode()
        answer = await self._answer(f"$JS.API.STREAM.INFO.{subjects.DEAD_LETTERS}", asked)
        return msgspec.json.decode(answer, type=_Stream).state.subjects.get(subject, 0)

    async def _answer(self, subject: str, asked: bytes = b"") -> bytes:
        try:
            answer = await self._broker.connected().request(subject, asked, timeout=_ANSWER_SECONDS)
        except (NatsError, OSError) as error:
            heed_cancellation()
            raise BrokerUnavailable(str(error) or type(error).__name__) from error
        heed_cancellation()
        return answer.data

    async def leave(self) -> None:
        """See `Source`."""
        if not self._pin:
            return
        subject = f"$JS.API.CONSUMER.UNPIN.{subjects.EVENTS}.{self._name}"
        try:
            client = self._broker.connected()
            await client.publish(subject, json.dumps({"group": self._group}).encode())
            await client.flush(timeout=1)
        except (NatsError, OSError) as error:
            raise BrokerUnavailable(str(error) or type(error).__name__) from error
        self._pin = ""

    async def _say(self, delivery: Delivery, what: bytes) -> None:
        try:
            await self._broker.connected().publish(delivery.token, what)
        except (NatsError, OSError) as error:
            raise BrokerUnavailable(str(error) or type(error).__name__) from error
