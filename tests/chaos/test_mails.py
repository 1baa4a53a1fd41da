"""Mails while what sends them is killed, and while nobody takes them."""

from __future__ import annotations

import asyncio
import os
import signal
from uuid import UUID

import mailing
from inside import paused, until_ready

from conftest import People, Platform


async def outcome(stack: Platform, user_id: str) -> tuple[object, ...]:
    """What has become of the only mail to somebody."""
    database = await stack.database("notificationdb")
    try:
        (row,) = await database.fetch("SELECT state, attempts FROM mails WHERE user_id = $1", UUID(user_id))
    finally:
        await database.close()
    return tuple(row)


async def test_a_process_that_dies_between_sending_and_noting_it_sends_the_same_mail_again(
    people: People, stack: Platform
) -> None:
    """At `slow.example` a mail is taken five seconds before the server says so: the process is killed in between."""
    pid = stack.pid("notification")
    customer, email = await mailing.newcomer(people, "slow.example")
    (taken,) = await mailing.arrived(stack, email, lambda mails: len(mails) == 1)
    os.kill(pid, signal.SIGKILL)
    me = (await customer.get_me()).data
    assert await outcome(stack, me.id) == ("waiting", 1)
    await until_ready(stack)
    (again,) = await mailing.arrived(stack, email, lambda mails: len(mails[0].received) == 2)
    # The receiver knows it by its Message-ID: it is one mail, that has come twice, byte for byte.
    assert (again.id, again.message_id, again.text, again.html) == (
        taken.id, taken.message_id, taken.text, taken.html,
    )  # fmt: skip
    async with asyncio.timeout(30):
        while await outcome(stack, me.id) != ("sent", 2):
            await asyncio.sleep(0.1)


async def test_mails_wait_for_a_server_that_is_away_and_none_is_counted_as_failed(
    people: People, stack: Platform
) -> None:
    with paused(stack.pid("mailbox")):
        several = [await mailing.newcomer(people) for _ in range(3)]
        database = await stack.database("notificationdb")
        async with asyncio.timeout(60):
            while not await database.fetchval("SELECT bool_or(last_error <> '') FROM mails WHERE state = 'waiting'"):
                await asyncio.sleep(0.1)
        await database.close()
    for customer, email in several:
        (mail,) = await mailing.arrived(stack, email, lambda mails: len(mails) == 1, seconds=120)
        me = (await customer.get_me()).data
        async with asyncio.timeout(30):
            while (await outcome(stack, me.id))[0] != "sent":
                await asyncio.sleep(0.1)
        assert await outcome(stack, me.id) == ("sent", 1)
        assert mail.subject == "Welcome"
