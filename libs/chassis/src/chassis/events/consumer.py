"""Acting on events: each once, those of one subject one after the other in their order, whatever fails meanwhile.

What a handler does in its transaction is done once: the transaction has the inbox's row as well, and the broker is told
after it has been committed. Of one subject ("order/0192...") the next event is begun when the one before is committed or
has been given up; other subjects go on beside it. An event that fails is tried again after a pause, and after some attempts
it is a dead letter, with what failed. What cannot be helped by giving it up (the database is down) is waited for.

The broker gives events to one process of a consumer at a time. One that has taken over from another waits until it has
everything that the other had in its hands, for else it would begin with later events.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, Protocol, TypeVar

import structlog
from google.protobuf.message import DecodeError, Message

from chassis.cancellation import heed_cancellation
from chassis.database import Connection, Database
from chassis.errors import as_service_error
from chassis.events import envelope, inbox, limits, subjects
from chassis.events.causes import caused_by, describe
from chassis.events.event import Event
from chassis.events.publisher import BrokerUnavailable
from chassis.metrics.families import Counter, Reading
from chassis.observe import Work, observe
from chassis.tracing import conventions

M = TypeVar("M", bound=Message)
M_contra = TypeVar("M_contra", bound=Message, contravariant=True)

# An event that was given more often, and that no process has come to an end with, may be what ends them; or it was only in the
# hands of a process that another event has ended. So while there is one, events are begun one at a time, in their order: those
# before the one that ends processes get done.
MOST_TOGETHER = 10
# An event that was given more often is given up, if it is what the process before must have died of: the first to begin.
MOST_DELIVERIES = 20
# What a failing dependency says of itself, and nothing of the event.
_DOWN = frozenset({"UNAVAILABLE", "OVERLOADED"})
_LOOK_SECONDS = 0.25
_RETRY_SECONDS = 0.5
_FORGET_SECONDS = 60.0
_FORGET_BATCH = 1000
# Of a dead letter's headers.
_LONGEST_ERROR = 500

_OUTCOMES = ("handled", "handled before", "unknown type", "dead letter")
HANDLED = Counter(
    "backend_events_total", "Events that a consumer has been given, by what became of them", outcome=_OUTCOMES
)
FAILED = Counter(
    "backend_event_failures_total", "Attempts that failed, by what follows", then=("retry", "wait", "dead letter")
)
REDELIVERED = Counter("backend_event_redeliveries_total", "Events that were given again")
_HELD = Reading("backend_events_held", "Events in the consumer's hands: acted on, or waiting behind another one")
_LAG = Reading("backend_consumer_lag", "Events that the consumer has not acted on yet")
_DEAD = Reading("backend_dead_letters", "Events that the consumer has given up, until they are replayed or dropped")

_log = structlog.get_logger(__name__)


class Acts(Protocol):
    """What acts on one type of events, whichever it is."""

    @property
    def event_type(self) -> str:
        """The full name of its message."""
        ...

    async def act(self, event: Event, connection: Connection) -> None:
        """Decode the event and act on it.

        Raises:
            UnreadableEventError: its data is no such message.
        """
        ...


class Handler(Protocol[M_contra]):
    """Acts on one type of events."""

    async def __call__(self, message: M_contra, event: Event, connection: Connection) -> None:
        """Do it, in the transaction of `connection`.

        What it raises is tried again; a domain's error that will never go away, too, up to its dead letter.
        """
        ...


@dataclass(frozen=True, slots=True)
class Handles(Generic[M]):
    """Which message a handler is for."""

    message: type[M]
    handler: Handler[M]

    @property
    def event_type(self) -> str:
        """See `Acts`."""
        return self.message.DESCRIPTOR.full_name

    async def act(self, event: Event, connection: Connection) -> None:
        """See `Acts`."""
        try:
            message = self.message.FromString(event.data)
        except DecodeError:
            raise envelope.UnreadableEventError(f"its data is no {self.event_type}") from None
        await self.handler(message, event, connection)


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event as the broker has given it to us.

    Attributes:
        sequence: where it is in the stream.
        times: how often it has been given, this time included.
        subject: on which it was published.
        token: by which the broker knows what we say of it.
    """

    sequence: int
    times: int
    subject: str
    token: str
    headers: Mapping[str, str]
    data: bytes


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a consumer has before it: events that nobody has been given, and those that somebody has in his hands."""

    waiting: int
    outstanding: int


class Source(Protocol):
    """A durable consumer at the broker. Every method raises BrokerUnavailable when there is no connection."""

    # Grows whenever we have taken over from another process, or may have.
    taken_over: int
    # Seconds after which the broker gives an event again that nobody has said anything of.
    patience: float

    async def pull(self, most: int) -> Sequence[Delivery]:
        """Some events, as soon as there are; none after a while without."""
        ...

    async def acknowledge(self, delivery: Delivery) -> None:
        """It is done, and is not given again."""
        ...

    async def extend(self, delivery: Delivery) -> None:
        """It is being worked on."""
        ...

    async def give_back(self, delivery: Delivery) -> None:
        """Somebody else may have it, soon."""
        ...

    async def bury(self, delivery: Delivery, why: Mapping[str, str]) -> None:
        """Store a dead letter of it, whatever it is; returns when the broker has it."""
        ...

    async def backlog(self) -> Backlog:
        """How much there is."""
        ...

    async def dead_letters(self) -> int:
        """How many of ours wait for somebody to see to them."""
        ...

    async def leave(self) -> None:
        """Another process may take over at once."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """How events are acted on.

    Attributes:
        concurrency: attempts at the same time, each of another subject.
        deadline: seconds for one attempt.
        attempts: until it is a dead letter.
        first_pause, longest_pause: seconds between attempts: doubled each time, and shortened by up to half at random.
        memory: how long the inbox knows an event.
    """

    concurrency: int = 8
    deadline: float = 30.0
    attempts: int = 10
    first_pause: float = 1.0
    longest_pause: float = 60.0
    memory: timedelta = timedelta(days=14)

    def pause(self, failures: int) -> float:
        """Seconds until the next attempt."""
        whole: float = min(self.longest_pause, self.first_pause * 2.0 ** min(failures - 1, 32))
        return whole * random.uniform(0.5, 1.0)


@dataclass(slots=True)
class _Held:
    delivery: Delivery
    event: Event | None
    # Why there is no event, when there is none.
    fault: str = ""

    def __lt__(self, other: _Held) -> bool:
        return self.delivery.sequence < other.delivery.sequence


class Consumer:
    """Acts on the events that a service consumes; its `run` is a worker.

    Args:
        name: the service's.
        source: where they come from.
        database: in whose transactions they are acted on; it has the inbox.
        handlers: one for each type; events of others are counted, and done with.
        policy: how.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        database: Database,
        handlers: Sequence[Acts],
        policy: Policy = Policy(),
    ) -> None:
        self._name = name
        self._source = source
        self._database = database
        self._handlers = {found.event_type: found for found in handlers}
        self._policy = policy
        self._slots = asyncio.Semaphore(policy.concurrency)
        # All that the broker waits to hear of, by its place in the stream; and by subject, what has not begun yet.
        self._held: dict[int, _Held] = {}
        self._lanes: dict[str, list[_Held]] = {}
        self._room = asyncio.Event()
        # Set while we have everything that is outstanding.
        self._in_order = asyncio.Event()
        # Places of those in hand that were given too often; and whether any event has begun since we took over.
        self._suspects: set[int] = set()
        self._has_begun = False
        # Set when one of those in hand has ended.
        self._ended = asyncio.Event()
        self._lag = 0
        self._dead = 0
        _HELD.read(lambda: len(self._held))
        _LAG.read(lambda: self._lag)
        _DEAD.read(lambda: self._dead)

    async def run(self) -> None:
        """Act on events until cancelled; then what is in hand is given back."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._extend())
                tasks.create_task(self._look())
                tasks.create_task(self._forget())
                await self._pull(tasks)
        finally:
            await self._give_back()

    async def _pull(self, tasks: asyncio.TaskGroup) -> None:
        known = -1
        self._in_order.clear()
        while True:
            # Here, where what came together with it is in hand and is given back.
            heed_cancellation()
            self._room.clear()
            room = limits.MOST_HELD - len(self._held)
            if room <= 0:
                await self._room.wait()
                continue
            try:
                found = await self._source.pull(room)
            except BrokerUnavailable:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if found and self._source.taken_over != known:
                known = self._source.taken_over
                self._in_order.clear()
                self._has_begun = False
                tasks.create_task(self._until_in_order(known))
            for delivery in found:
                self._take(delivery, tasks)

    def _take(self, delivery: Delivery, tasks: asyncio.TaskGroup) -> None:
        if delivery.times > 1:
            REDELIVERED.add()
        if (held := self._held.get(delivery.sequence)) is not None:
            # Our word that we work on it came too late. The next goes by the newer token.
            held.delivery = delivery
            return
        held = self._read(delivery)
        self._held[delivery.sequence] = held
        if delivery.times > MOST_TOGETHER:
            self._suspects.add(delivery.sequence)
        lane = held.event.subject if held.event is not None else f"unreadable {delivery.sequence}"
        if lane in self._lanes:
            heapq.heappush(self._lanes[lane], held)
        else:
            self._lanes[lane] = [held]
            tasks.create_task(self._work(lane))

    def _read(self, delivery: Delivery) -> _Held:
        try:
            event = envelope.event(delivery.headers, delivery.data)
        except envelope.UnreadableEventError as error:
            return _Held(delivery, None, str(error))
        except Exception as error:
            # Whatever is wrong with one message, the others are acted on.
            return _Held(delivery, None, f"{type(error).__name__}: {error}")
        if delivery.subject not in (subjects.of_type(event.type), subjects.of_replays(self._name)):
            # The broker sees to it who publishes on which subject. Of what type a message is, it only says itself.
            return _Held(delivery, None, "it is of another type than its subject")
        return _Held(delivery, event)

    async def _work(self, lane: str) -> None:
        """Act on the events of one subject until there are no more."""
        waiting = self._lanes[lane]
        while waiting:
            await self._in_order.wait()
            # Looked at again: an earlier one may have come meanwhile.
            while self._suspects and waiting[0].delivery.sequence != min(self._held):
                self._ended.clear()
                await self._ended.wait()
            held = heapq.heappop(waiting)
            is_first, self._has_begun = not self._has_begun, True
            await self._settle(held, is_first=is_first)
            del self._held[held.delivery.sequence]
            self._suspects.discard(held.delivery.sequence)
            self._ended.set()
            self._room.set()
        del self._lanes[lane]

    async def _settle(self, held: _Held, *, is_first: bool) -> None:
        event, handler = held.event, self._handlers.get(held.event.type) if held.event is not None else None
        if event is None:
            await self._bury(held, held.fault, 0)
        elif handler is None:
            _log.warning("nobody here acts on events of this type", event_type=event.type)
            await self._done(held, "unknown type")
        elif is_first and held.delivery.times > MOST_DELIVERIES:
            await self._bury(held, f"it was given {held.delivery.times} times, and nobody came to an end with it", 0)
        else:
            await self._until_done(held, event, handler)

    async def _until_done(self, held: _Held, event: Event, handler: Acts) -> None:
        failures, waits = 0, 0
        while True:
            try:
                is_new = await self._attempt(held, event, handler)
            except envelope.UnreadableEventError as error:
                await self._bury(held, str(error), 1)
                return
            except Exception as error:
                known = as_service_error(error)
                if isinstance(error, BrokerUnavailable) or (known is not None and known.reason in _DOWN):
                    waits += 1
                    FAILED.add("wait")
                    _log.warning("an event waits", event_type=event.type, event_id=str(event.id), why=str(error))
                    await asyncio.sleep(self._policy.pause(waits))
                    continue
                failures += 1
                if failures >= self._policy.attempts:
                    await self._bury(held, f"{type(error).__name__}: {error}", failures)
                    return
                FAILED.add("retry")
                _log.warning(
                    "an event failed", event_type=event.type, event_id=str(event.id), attempt=failures, exc_info=error
                )
                await asyncio.sleep(self._policy.pause(failures))
            else:
                await self._done(held, "handled" if is_new else "handled before")
                return

    async def _attempt(self, held: _Held, event: Event, handler: Acts) -> bool:
        """Act on an event in one transaction; whether nobody had."""
        work = Work("consume", event.type, span=conventions.process(held.delivery.subject, self._name))
        seconds = self._policy.deadline
        async with self._slots:
            until = asyncio.get_running_loop().time() + seconds
            with observe(work, caused_by(event, until)) as seen:
                describe(seen.span, event)
                async with asyncio.timeout_at(until), self._database.transaction() as connection:
                    if not await inbox.note(connection, self._name, event.source, event.id):
                        return False
                    await handler.act(event, connection)
        return True

    async def _done(self, held: _Held, outcome: str) -> None:
        HANDLED.add(outcome)
        # Lost, it is given again, and the inbox knows it.
        with suppress(BrokerUnavailable):
            await self._source.acknowledge(held.delivery)

    async def _bury(self, held: _Held, error: str, attempts: int) -> None:
        why = {
            "dead-consumer": self._name,
            # Of an error nobody knows what is in it; a header is a line of ASCII.
            "dead-error": " ".join(error.split())[:_LONGEST_ERROR].encode("ascii", "backslashreplace").decode(),
            "dead-attempts": str(attempts),
            "dead-time": datetime.now(UTC).isoformat(),
        }
        waits = 0
        while True:
            try:
                await self._source.bury(held.delivery, why)
            except BrokerUnavailable as unavailable:
                waits += 1
                _log.warning("a dead letter waits for the broker", why=str(unavailable))
                await asyncio.sleep(self._policy.pause(waits))
            else:
                break
        FAILED.add("dead letter")
        event = held.event
        _log.error(
            "an event was given up; `backend events dead-letters` has it",
            event_type=event.type if event else "",
            event_id=str(event.id) if event else "",
            attempts=attempts,
            error=error,
        )
        await self._done(held, "dead letter")

    async def _until_in_order(self, taken_over: int) -> None:
        """Wait until we have all that another process may have had in its hands, or it must have been given to us."""
        clock = asyncio.get_running_loop().time
        give_up = clock() + 1.5 * self._source.patience
        while clock() < give_up:
            with suppress(BrokerUnavailable):
                if (await self._source.backlog()).outstanding <= len(self._held):
                    break
            await asyncio.sleep(_LOOK_SECONDS)
        if taken_over == self._source.taken_over:
            self._in_order.set()

    async def _extend(self) -> None:
        """Tell the broker of everything in hand that it is being worked on."""
        while True:
            await asyncio.sleep(self._source.patience / 3)
            with suppress(BrokerUnavailable):
                for held in list(self._held.values()):
                    await self._source.extend(held.delivery)

    async def _look(self) -> None:
        while True:
            with suppress(BrokerUnavailable):
                backlog = await self._source.backlog()
                self._lag = backlog.waiting + backlog.outstanding
                self._dead = await self._source.dead_letters()
            await asyncio.sleep(self._source.patience / 2)

    async def _forget(self) -> None:
        while True:
            await asyncio.sleep(_FORGET_SECONDS * random.uniform(0.8, 1.2))
            try:
                async with self._database.transaction() as connection:
                    await inbox.forget(connection, self._policy.memory, _FORGET_BATCH)
            except Exception as error:
                _log.warning("old rows of the inbox could not be removed", error=str(error))

    async def _give_back(self) -> None:
        with suppress(BrokerUnavailable):
            for held in self._held.values():
                await self._source.give_back(held.delivery)
            await self._source.leave()
        self._held.clear()
        self._lanes.clear()
        self._suspects.clear()
