from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from chassis.context import RequestContext, serving
from chassis.errors import ServiceError
from user.domain.errors import StaleVersionError, UnknownRoleError
from user.domain.user import Role, parse_roles
from user.service.passwords import Passwords


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(workers=1, queue=2)
    yield made
    made.close()


async def test_a_hash_verifies_its_password_only(passwords: Passwords) -> None:
    hashed = await passwords.hash("correct horse")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.verify(hashed, "correct horse")
    assert not await passwords.verify(hashed, "correct horsf")
    assert not await passwords.verify("not a hash", "x")


async def test_nobodys_password_never_matches_not_even_the_decoys(passwords: Passwords) -> None:
    assert not await passwords.verify(None, "nobody's password")


async def test_the_queue_is_bounded_and_empties(passwords: Passwords) -> None:
    release = threading.Event()
    blocked = [asyncio.create_task(passwords._run(release.wait)) for _ in range(3)]
    await asyncio.sleep(0.05)
    with pytest.raises(ServiceError) as caught:
        await passwords.hash("x")
    assert caught.value.reason == "OVERLOADED"
    release.set()
    await asyncio.gather(*blocked)
    assert await passwords.hash("x")


@contextmanager
def one_hash_that_takes_its_time(passwords: Passwords) -> Iterator[None]:
    release = threading.Event()
    try:
        passwords._executor.submit(release.wait)
        yield
    finally:
        release.set()


async def test_a_wait_ends_at_the_deadline(passwords: Passwords) -> None:
    # As if hashes had been quick so far.
    passwords._seconds = 0.001
    with one_hash_that_takes_its_time(passwords):
        soon = RequestContext("request", asyncio.get_running_loop().time() + 0.1)
        with serving(soon), pytest.raises(ServiceError) as caught:
            await passwords.hash("x")
        assert caught.value.reason == "DEADLINE_EXCEEDED"


async def test_who_would_not_get_its_hash_in_time_is_refused_when_it_comes(passwords: Passwords) -> None:
    passwords._seconds = 3.0
    assert passwords.expected_seconds() == 3.0
    waiting = asyncio.create_task(passwords.hash("first"))
    await asyncio.sleep(0)
    assert passwords.expected_seconds() == 6.0
    loop = asyncio.get_running_loop()
    with serving(RequestContext("request", loop.time() + 5)), pytest.raises(ServiceError) as caught:
        await passwords.hash("x")
    assert (caught.value.reason, caught.value.retry_after) == ("OVERLOADED", 6.0)
    assert await waiting
    # What it measures is what it expects.
    for _ in range(40):
        await passwords.hash("x")
    assert passwords._seconds < 3
    with serving(RequestContext("request", loop.time() + 5)):
        assert await passwords.hash("x")


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own elsewhere")
async def test_hashes_come_after_everybody_else(passwords: Passwords) -> None:
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    theirs = await passwords._run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    assert theirs == min(19, mine + 10)
    assert os.getpriority(os.PRIO_PROCESS, 0) == mine


def test_roles_are_a_set_in_a_fixed_order() -> None:
    assert parse_roles(["support", "admin", "support"]) == (Role.ADMIN, Role.SUPPORT)
    with pytest.raises(UnknownRoleError):
        parse_roles(["emperor"])
    assert StaleVersionError.reason == "STALE_VERSION"
