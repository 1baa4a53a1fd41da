"""Sending mails from their rows: once where nothing fails, again where nobody can know, and no longer than makes sense."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.headerregistry import Address

import pytest
from chassis.database import Database
from chassis.errors import ServiceError
from chassis.ids import uuid7
from notification.domain.errors import (
    MailDeferredError,
    MailRefusedError,
    MailServerUnavailableError,
    NoRecipientError,
)
from notification.domain.mail import Mail, MailKind, MailState
from notification.gateways.contacts import Contact
from notification.repository import mails
from notification.service.letters import Letters
from notification.service.preferences import PreferenceUseCases
from notification.service.sending import Policy, Sending

from conftest import Platform
from devstack import postgres

QUICK = Policy(
    deadline=0.5,
    lease=0.8,
    attempts=3,
    first_pause=0.02,
    longest_pause=0.05,
    longest_outage_pause=0.1,
    concurrency=4,
    rate=1000.0,
)


@pytest.fixture
async def database(platform: Platform) -> AsyncIterator[Database]:
    known = postgres.database_of("notification", platform.secrets)
    own = replace(known, database=f"notification_{uuid.uuid4().hex}")
    superuser = await platform.database("postgres")
    await postgres.prepare_one(platform.layout, platform.secrets, own)
    await postgres.migrate_one(platform.layout, platform.secrets, own, print)
    made = Database(own.url(platform.layout), min_size=1, max_size=8, service="test")
    await made.open()
    yield made
    await made.close()
    await superuser.execute(f"DROP DATABASE {own.database}")
    await superuser.close()


@dataclass
class World:
    """Who knows addresses and who takes mails: as told, one after the other, and well from then on."""

    troubles: list[Exception | str] = field(default_factory=list)
    gone: set[uuid.UUID] = field(default_factory=set)
    is_down: bool = False
    taken: list[bytes] = field(default_factory=list)

    async def of(self, user_id: uuid.UUID) -> Contact:
        if self.is_down:
            raise ServiceError("UNAVAILABLE")
        if user_id in self.gone:
            raise NoRecipientError
        return Contact("ada@example.com", "Ada")

    async def send(self, content: bytes, sender: str, recipient: str) -> None:
        assert (sender, recipient) == ("shop@backend.example", "ada@example.com")
        match self.troubles.pop(0) if self.troubles else None:
            case None:
                self.taken.append(content)
            case "hangs":
                await asyncio.sleep(30)
            case "taken, and hangs":
                self.taken.append(content)
                await asyncio.sleep(30)
            case Exception() as error:
                raise error


def sending(database: Database, world: World, policy: Policy = QUICK) -> Sending:
    letters = Letters(Address("Shop", addr_spec="shop@backend.example"), "en")
    return Sending(database=database, contacts=world, letters=letters, server=world, policy=policy)


@asynccontextmanager
async def at_work(*workers: Sending) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def noted(database: Database, kind: MailKind = MailKind.WELCOME, user_id: uuid.UUID | None = None) -> Mail:
    mail = Mail(uuid7(), kind, user_id or uuid7(), b"", datetime.now(UTC), "")
    async with database.transaction() as connection:
        await mails.note(connection, mail)
    return mail


async def states(database: Database) -> dict[uuid.UUID, tuple[str, int, str]]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT event_id, state::text AS state, attempts, last_error FROM mails")
    return {row["event_id"]: (row["state"], row["attempts"], row["last_error"]) for row in rows}


async def until_ended(database: Database) -> dict[uuid.UUID, tuple[str, int, str]]:
    async with asyncio.timeout(60):
        while True:
            found = await states(database)
            if all(state != "waiting" for state, _, _ in found.values()):
                return found
            await asyncio.sleep(0.02)


async def test_several_processes_send_each_mail_once(database: Database) -> None:
    world = World()
    several = [await noted(database) for _ in range(40)]
    async with at_work(*(sending(database, world) for _ in range(3))):
        found = await until_ended(database)
    assert set(found.values()) == {("sent", 1, "")}
    assert len(world.taken) == len(set(world.taken)) == len(several)


async def test_many_mails_are_begun_so_many_a_second_and_no_more(database: Database) -> None:
    several, began = [await noted(database) for _ in range(30)], time.monotonic()
    async with at_work(sending(database, World(), replace(QUICK, rate=40.0))):
        await until_ended(database)
    # Those of the last look are not waited for.
    assert time.monotonic() - began >= (len(several) - QUICK.concurrency) / 40


async def test_an_event_has_one_mail(database: Database) -> None:
    mail = await noted(database)
    async with database.transaction() as connection:
        await mails.note(connection, replace(mail, kind=MailKind.ORDER_PLACED))
    assert list(await states(database)) == [mail.event_id]


async def test_what_is_not_taken_now_is_tried_again_and_given_up_after_some_attempts(database: Database) -> None:
    world = World([MailDeferredError("the server answered 450")] * 2)
    first = await noted(database)
    async with at_work(sending(database, world)):
        assert (await until_ended(database))[first.event_id] == ("sent", 3, "")
        world.troubles = [MailDeferredError("the server answered 450"), "hangs", ValueError("ada@example.com")]
        second = await noted(database)
        # Of an error that nobody foresaw nothing but its name is kept.
        assert (await until_ended(database))[second.event_id] == ("given_up", 3, "ValueError")
    assert len(world.taken) == 1


async def test_a_refusal_is_for_good(database: Database) -> None:
    world = World([MailRefusedError("the server answered 550 5.1.1")])
    mail = await noted(database)
    async with at_work(sending(database, world)):
        assert await until_ended(database) == {mail.event_id: ("refused", 1, "the server answered 550 5.1.1")}


async def test_who_is_gone_or_does_not_want_it_is_not_written_to(database: Database) -> None:
    world = World(gone={(gone := uuid7())})
    choosy = uuid7()
    preferences = PreferenceUseCases(database=database, now=lambda: datetime.now(UTC))
    await preferences.switch(choosy, {MailKind.WELCOME: False}, None)
    unwanted, nobodys = await noted(database, user_id=choosy), await noted(database, user_id=gone)
    async with at_work(sending(database, world)):
        found = await until_ended(database)
    assert found == {unwanted.event_id: ("unwanted", 1, ""), nobodys.event_id: ("no_recipient", 1, "")}
    assert world.taken == []


@pytest.mark.parametrize("who", ["the server", "the User service"])
async def test_while_nobody_can_be_reached_all_wait_and_nothing_is_counted(database: Database, who: str) -> None:
    world = World()
    if who == "the server":
        world.troubles = [MailServerUnavailableError("SMTPConnectError")] * 12
    else:
        world.is_down = True
    several = [await noted(database) for _ in range(10)]
    async with at_work(sending(database, world)):
        async with asyncio.timeout(30):
            while not any(error for _, _, error in (await states(database)).values()):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        world.is_down = False
        found = await until_ended(database)
    assert {(state, attempts) for state, attempts, _ in found.values()} == {("sent", 1)}
    assert len(world.taken) == len(several)


async def test_a_process_that_dies_after_the_mail_was_taken_sends_the_same_again(database: Database) -> None:
    world = World(["taken, and hangs"])
    mail = await noted(database)
    dying = sending(database, world, replace(QUICK, deadline=30.0))
    running = asyncio.create_task(dying.run())
    async with asyncio.timeout(30):
        while not world.taken:
            await asyncio.sleep(0.01)
    # Killed: nothing of it runs any more, and it has noted nothing.
    for task in (*dying._in_hand, running):
        task.cancel()
    await asyncio.wait([running])
    assert await states(database) == {mail.event_id: ("waiting", 1, "")}
    async with at_work(sending(database, world)):
        assert await until_ended(database) == {mail.event_id: ("sent", 2, "")}
    assert world.taken == [world.taken[0]] * 2


async def test_a_mail_that_kills_its_process_is_given_up(database: Database) -> None:
    world, mail = World(), await noted(database)
    async with database.connection() as connection:
        for _ in range(QUICK.attempts):
            (claimed,) = await mails.claim(connection, 10, 0.0)
            assert claimed.event_id == mail.event_id
    async with at_work(sending(database, world)):
        assert await until_ended(database) == {mail.event_id: ("given_up", QUICK.attempts + 1, "")}
    assert world.taken == []


async def test_who_comes_late_changes_nothing(database: Database) -> None:
    """A process that stood still for longer than its lease finds that the mail is another's."""
    mail = await noted(database)
    async with database.connection() as connection:
        (late,) = await mails.claim(connection, 1, 0.0)
        (second,) = await mails.claim(connection, 1, 60.0)
        assert await mails.claim(connection, 1, 60.0) == []
        assert not await mails.postpone(connection, late, 0.0, "late", counts=False)
        assert not await mails.end(connection, late, MailState.GIVEN_UP)
        assert await mails.end(connection, second, MailState.SENT)
        assert not await mails.end(connection, second, MailState.REFUSED)
    assert await states(database) == {mail.event_id: ("sent", 2, "")}


async def test_a_kind_that_only_a_later_release_knows_is_left_to_it(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO mails (event_id, kind, user_id, data, occurred_at, traceparent) "
            "VALUES ($1, 'product_news', $1, '', now(), '')",
            uuid7(),
        )
        assert await mails.claim(connection, 10, 60.0) == []
        assert (await mails.waiting(connection))[0] == 1


async def test_a_mail_that_a_clock_that_was_ahead_has_put_off_is_sent(database: Database) -> None:
    far, soon, world = await noted(database), await noted(database), World()
    async with database.connection() as connection:
        for mail, seconds in ((far, 86400), (soon, QUICK.lease)):
            await connection.execute(
                "UPDATE mails SET next_attempt_at = now() + $2 * interval '1 second' WHERE event_id = $1",
                mail.event_id,
                float(seconds),
            )
    worker = sending(database, world)
    await worker.tidy()
    async with database.connection() as connection:
        # What is put off no further than it may be stays so.
        assert [mail.event_id for mail in await mails.claim(connection, 10, 0.0)] == [far.event_id]


async def test_after_an_outage_a_mail_that_is_not_taken_now_shows_that_it_is_over(database: Database) -> None:
    """Or all would be sent one after the other until one is taken."""
    world = World([MailServerUnavailableError("SMTPConnectError"), MailDeferredError("the server answered 450")])
    await noted(database)
    worker = sending(database, world, replace(QUICK, first_pause=30.0, longest_pause=30.0))
    async with at_work(worker), asyncio.timeout(30):
        while world.troubles or any(error == "SMTPConnectError" for _, _, error in (await states(database)).values()):
            await asyncio.sleep(0.02)
    assert worker._failures == 0


async def test_what_has_ended_is_forgotten_and_what_waits_is_not(database: Database) -> None:
    ended, waiting = await noted(database), await noted(database)
    async with database.connection() as connection:
        claimed = {mail.event_id: mail for mail in await mails.claim(connection, 2, 60.0)}
        await mails.end(connection, claimed[ended.event_id], MailState.SENT)
        assert await mails.forget(connection, 86400.0, 10) == 0
        assert await mails.forget(connection, -86400.0, 10) == 1
    assert list(await states(database)) == [waiting.event_id]
