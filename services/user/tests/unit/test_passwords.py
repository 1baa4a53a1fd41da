from __future__ import annotations

import asyncio
import threading

import pytest
from chassis.context import RequestContext, serving
from chassis.errors import ServiceError
from user_service.domain.errors import StaleVersionError, UnknownRoleError
from user_service.domain.user import Role, parse_roles
from user_service.service.passwords import Passwords


@pytest.fixture
def passwords():  # type: ignore[no-untyped-def]
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


async def test_a_wait_ends_at_the_deadline(passwords: Passwords) -> None:
    release = threading.Event()
    blocking = asyncio.create_task(passwords._run(release.wait))
    await asyncio.sleep(0.05)
    soon = RequestContext("request", asyncio.get_running_loop().time() + 0.1)
    with serving(soon), pytest.raises(ServiceError) as caught:
        await passwords.hash("x")
    assert caught.value.reason == "DEADLINE_EXCEEDED"
    release.set()
    await blocking


def test_roles_are_a_set_in_a_fixed_order() -> None:
    assert parse_roles(["support", "admin", "support"]) == (Role.ADMIN, Role.SUPPORT)
    with pytest.raises(UnknownRoleError):
        parse_roles(["emperor"])
    assert StaleVersionError.reason == "STALE_VERSION"
