"""Sends the mails that have been noted: each once where nothing fails, and again where nobody can know.

A mail is begun by whoever has its row, which nobody else is given before the lease is over. Between the server's word that
it has the mail and our own that it was sent, a process may die: then it is sent again, under the same Message-ID.

What speaks against one mail counts as an attempt of it. What keeps all of them (the server or the User service cannot be
reached) does not: then everything waits, and one mail at a time tries whether it is over.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import structlog
from chassis.context import RequestContext
from chassis.database import Connection, Database
from chassis.errors import ServiceError
from chassis.metrics.families import Counter, Reading
from chassis.observe import Work, observe
from chassis.tracing import conventions

from notification.domain.errors import (
    MailDeferredError,
    MailRefusedError,
    MailServerUnavailableError,
    NoRecipientError,
)
from notification.domain.mail import Mail, MailKind, MailState
from notification.gateways.contacts import Contacts
from notification.gateways.smtp import MailServer
from notification.repository import mails, preferences
from notification.service.letters import Letters

# The longest time until a mail that was noted is begun, while nothing else waits.
_LOOK_SECONDS = 1.0
_MEASURE_SECONDS = 5.0
_TIDY_SECONDS = 60.0
_FORGET_BATCH = 1000
# For those in hand, when the process stops.
_STOP_SECONDS = 4.0
_NOTE_AGAIN_SECONDS = 0.5
# What the User service says of itself, and nothing of the mail.
_DOWN = frozenset({"UNAVAILABLE", "OVERLOADED", "DEADLINE_EXCEEDED"})

ENDED = Counter(
    "backend_mails_total",
    "Mails, by what has become of them",
    outcome=tuple(state.value for state in MailState if state is not MailState.WAITING),
)
FAILED = Counter(
    "backend_mail_failures_total",
    "Attempts to send a mail that failed: nobody could be reached, or this mail was not taken now",
    reason=("unavailable", "deferred"),
)
_WAITING = Reading("backend_mails_waiting", "Mails that are noted and not sent")
_AGE = Reading("backend_mails_age_seconds", "How long the eldest of them has been waiting")

_WORK = {kind: Work("mail", kind.value, span=conventions.mail(kind.value)) for kind in MailKind}
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """How mails are sent.

    Attributes:
        concurrency: at the same time.
        rate: begun in a second at most. Thousands of orders are thousands of mails, which can wait; orders go on beside them.
        deadline: seconds for one attempt.
        lease: seconds after which a mail is begun again whose process has said nothing; more than the deadline.
        attempts: until it is given up.
        first_pause, longest_pause: seconds between attempts, doubled each time, and shortened by up to half at random.
        longest_outage_pause: the same while nobody can be reached.
        memory: how long mails are kept that nothing more is done about.
    """

    concurrency: int = 8
    rate: float = 20.0
    deadline: float = 30.0
    lease: float = 60.0
    attempts: int = 20
    first_pause: float = 5.0
    longest_pause: float = 3600.0
    longest_outage_pause: float = 30.0
    memory: timedelta = timedelta(days=30)

    def pause(self, attempts: int) -> float:
        """Seconds until the next attempt of a mail."""
        return _backoff(self.first_pause, attempts, self.longest_pause)

    def outage_pause(self, failures: int) -> float:
        """Seconds until somebody looks whether everybody can be reached again."""
        return _backoff(1.0, failures, self.longest_outage_pause)


def _backoff(first: float, failures: int, longest: float) -> float:
    whole: float = min(longest, first * 2.0 ** min(failures - 1, 32))
    return whole * random.uniform(0.5, 1.0)


class Sending:
    """Its `run` is a worker; as many processes may have one as like.

    Args:
        database: with the mails.
        contacts: who knows addresses.
        letters: writes.
        server: takes mails.
        policy: how.
    """

    def __init__(
        self,
        *,
        database: Database,
        contacts: Contacts,
        letters: Letters,
        server: MailServer,
        policy: Policy,
    ) -> None:
        self._database = database
        self._contacts = contacts
        self._letters = letters
        self._server = server
        self._policy = policy
        self._in_hand: set[asyncio.Task[None]] = set()
        # Something has ended, so that there is room for the next.
        self._freed = asyncio.Event()
        # Failures in a row to reach somebody, and until when nobody tries.
        self._failures = 0
        self._silent_until = 0.0

    async def run(self) -> None:
        """Send what is due until cancelled; those in hand have some seconds more."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._measure())
                tasks.create_task(self._tidy())
                tasks.create_task(self._take())
        finally:
            if self._in_hand:
                await asyncio.wait(self._in_hand, timeout=_STOP_SECONDS)
            for task in self._in_hand:
                task.cancel()

    async def _take(self) -> None:
        while True:
            self._freed.clear()
            found = await self._claimed()
            for mail in found:
                task = asyncio.create_task(self._work(mail))
                self._in_hand.add(task)
                task.add_done_callback(self._let_go)
            await asyncio.sleep(len(found) / self._policy.rate)
            if found and self._room():
                continue
            try:
                async with asyncio.timeout(_LOOK_SECONDS * random.uniform(0.8, 1.0)):
                    await self._freed.wait()
            except TimeoutError:
                continue

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._in_hand.discard(task)
        self._freed.set()

    def _room(self) -> int:
        """How many more may be begun now."""
        if _clock() < self._silent_until:
            return 0
        # Whether an outage is over, one of them finds out.
        most = 1 if self._failures else self._policy.concurrency
        return max(0, most - len(self._in_hand))

    async def _claimed(self) -> list[Mail]:
        room = self._room()
        if not room:
            return []
        try:
            async with self._database.connection() as connection:
                return await mails.claim(connection, room, self._policy.lease)
        except ServiceError as error:
            _log.warning("mails cannot be looked for", error=str(error))
            return []

    async def _work(self, mail: Mail) -> None:
        """One attempt, and what follows from it."""
        lease_ends = _clock() + self._policy.lease
        current = RequestContext(request_id=str(mail.event_id), traceparent=mail.traceparent, deadline=lease_ends)
        try:
            with observe(_WORK[mail.kind], current) as seen:
                if seen.span is not None:
                    seen.span.link = mail.traceparent
                    seen.span.attributes = {"messaging.message.id": str(mail.event_id)}
                async with asyncio.timeout(self._policy.deadline):
                    state = await self._send(mail)
        except (MailServerUnavailableError, ServiceError) as error:
            if isinstance(error, ServiceError) and error.reason not in _DOWN:
                await self._fail(mail, f"the User service answered {error.reason}", lease_ends)
            else:
                await self._wait(mail, str(error), lease_ends)
        except MailDeferredError as error:
            # The server was reached.
            self._failures = 0
            await self._fail(mail, str(error), lease_ends)
        except MailRefusedError as error:
            self._failures = 0
            await self._end(mail, MailState.REFUSED, str(error), lease_ends)
        except TimeoutError:
            await self._fail(mail, f"no answer within {self._policy.deadline:g} s", lease_ends)
        except Exception as error:
            # Of its text nobody knows what is in it.
            await self._fail(mail, type(error).__name__, lease_ends)
        else:
            self._failures = 0
            await self._end(mail, state, "", lease_ends)

    async def _send(self, mail: Mail) -> MailState:
        """What becomes of it, unless something is raised."""
        if mail.attempts > self._policy.attempts:
            # Counted before each: those whose process died were attempts as well.
            return MailState.GIVEN_UP
        async with self._database.connection() as connection:
            chosen = await preferences.get(connection, mail.user_id)
        if not chosen.wants(mail.kind):
            return MailState.UNWANTED
        try:
            contact = await self._contacts.of(mail.user_id)
        except NoRecipientError:
            return MailState.NO_RECIPIENT
        letter = self._letters.write(mail, contact)
        await self._server.send(letter.content, letter.sender, letter.recipient)
        return MailState.SENT

    async def _end(self, mail: Mail, state: MailState, error: str, lease_ends: float) -> None:
        if state in (MailState.REFUSED, MailState.GIVEN_UP):
            _log.error("a mail is not sent", event_id=str(mail.event_id), kind=mail.kind, state=state, error=error)
        if await self._note(lambda rows: mails.end(rows, mail, state, error), mail, lease_ends):
            ENDED.add(state.value)

    async def _fail(self, mail: Mail, error: str, lease_ends: float) -> None:
        """This mail was not taken; others may be."""
        FAILED.add("deferred")
        if mail.attempts >= self._policy.attempts:
            await self._end(mail, MailState.GIVEN_UP, error, lease_ends)
            return
        _log.warning(
            "a mail is tried again", event_id=str(mail.event_id), kind=mail.kind, attempt=mail.attempts, error=error
        )
        pause = self._policy.pause(mail.attempts)
        await self._note(lambda rows: mails.postpone(rows, mail, pause, error, counts=True), mail, lease_ends)

    async def _wait(self, mail: Mail, error: str, lease_ends: float) -> None:
        """Nobody takes any mail now."""
        FAILED.add("unavailable")
        if _clock() >= self._silent_until:
            # Once for all that were under way.
            self._failures += 1
            self._silent_until = _clock() + self._policy.outage_pause(self._failures)
            _log.warning("mails wait", error=error)
        await self._note(lambda rows: mails.postpone(rows, mail, 0.0, error, counts=False), mail, lease_ends)

    async def _note(self, change: Callable[[Connection], Awaitable[bool]], mail: Mail, lease_ends: float) -> bool:
        """Note what became of an attempt, again until it is noted or the mail is somebody else's; whether it is noted."""
        while _clock() < lease_ends:
            try:
                async with self._database.connection() as connection:
                    return await change(connection)
            except ServiceError as error:
                _log.warning("what became of a mail cannot be noted", event_id=str(mail.event_id), error=str(error))
                await asyncio.sleep(_NOTE_AGAIN_SECONDS)
        return False

    async def _measure(self) -> None:
        while True:
            try:
                async with self._database.connection() as connection:
                    waiting, age = await mails.waiting(connection)
            except ServiceError as error:
                _log.info("mails cannot be counted", error=str(error))
            else:
                _WAITING.tell(waiting)
                _AGE.tell(age)
            await asyncio.sleep(_MEASURE_SECONDS)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(_TIDY_SECONDS * random.uniform(0.8, 1.2))
            with suppress(ServiceError):
                await self.tidy()

    async def tidy(self) -> None:
        """Begin what a clock that was ahead has put off, and forget what is old.

        Raises:
            ServiceError: the database does not do it now.
        """
        furthest = 2 * max(self._policy.longest_pause, self._policy.lease)
        async with self._database.connection() as connection:
            if count := await mails.recall(connection, furthest):
                _log.warning("mails were put off by a clock that was ahead", count=count)
            await mails.forget(connection, self._policy.memory.total_seconds(), _FORGET_BATCH)


def _clock() -> float:
    return asyncio.get_running_loop().time()
