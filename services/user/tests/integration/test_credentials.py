"""Guessing, and everything else that looks at a password or an address, over the real PostgreSQL and Valkey."""

from __future__ import annotations

import asyncio
import random
import unicodedata
import uuid
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from argon2 import PasswordHasher
from chassis.errors import ServiceError, as_service_error
from contracts.user.v1.session_pb2 import Client
from identity_races import PASSWORD, Identity, QuickPasswords, opened, session_of
from user.domain.user import Role, User, UserStatus
from user.repository import queries, users
from user.repository.login_throttle import ACCOUNT_ATTEMPTS, FREE_ATTEMPTS
from user.service.credentials import _hash
from user.service.passwords import Passwords

from conftest import Platform


@pytest.fixture
async def identity(platform: Platform) -> AsyncIterator[Identity]:
    async with opened(platform.layout, platform.secrets, QuickPasswords(random.Random(1))) as made:
        yield made


async def outcome(awaitable: Awaitable[Any]) -> str:
    try:
        await awaitable
    except Exception as error:
        known = as_service_error(error)
        assert known is not None, error
        return known.reason
    return "OK"


def at(address: str, device_token: str = "") -> Client:
    return Client(user_agent="browser", address=address, device_token=device_token)


async def guesses(identity: Identity, user: User, address: str, times: int) -> list[str]:
    return [await outcome(identity.credentials.log_in(user.email, "a wrong one", at(address))) for _ in range(times)]


class TestThrottle:
    async def test_strangers_at_one_address_do_not_hold_the_owner_up(self, identity: Identity) -> None:
        user = await identity.newcomer()
        found = await guesses(identity, user, "10.0.0.1", 35)
        assert found == ["INVALID_CREDENTIALS"] * FREE_ATTEMPTS + ["TOO_MANY_ATTEMPTS"] * 30
        assert await outcome(identity.credentials.log_in(user.email, PASSWORD, at("10.0.0.2"))) == "OK"
        # Their own wait has not become shorter by it.
        assert await guesses(identity, user, "10.0.0.1", 1) == ["TOO_MANY_ATTEMPTS"]

    async def test_many_strangers_are_slowed_together_and_the_owner_who_is_known_is_not(
        self, identity: Identity
    ) -> None:
        user = await identity.newcomer()
        home = await identity.credentials.log_in(user.email, PASSWORD, at("10.9.9.9"))
        elsewhere = await identity.credentials.log_in(user.email, PASSWORD, at("10.9.9.8"))
        found = []
        for number in range(20):
            found += await guesses(identity, user, f"10.0.1.{number}", 4)
        assert found.count("INVALID_CREDENTIALS") == ACCOUNT_ATTEMPTS
        log_in = identity.credentials.log_in
        assert await outcome(log_in(user.email, PASSWORD, at("10.0.2.1"))) == "TOO_MANY_ATTEMPTS"
        assert await outcome(log_in(user.email, PASSWORD, at("10.0.2.1", home.device_token))) == "OK"
        assert await outcome(log_in(user.email, PASSWORD, at("10.9.9.9"))) == "OK"
        # What the owner is known by is no way around for guesses.
        device = at("10.0.3.1", elsewhere.device_token)
        wrong = [await outcome(log_in(user.email, "a wrong one", device)) for _ in range(7)]
        assert wrong == ["INVALID_CREDENTIALS"] * 5 + ["TOO_MANY_ATTEMPTS"] * 2
        # Another account's device, and one made up, are nobody's.
        other = await identity.newcomer()
        foreign = await log_in(other.email, PASSWORD, at("10.0.2.1"))
        for token in (foreign.device_token, "AAAA", "x" * 70):
            assert await outcome(log_in(user.email, PASSWORD, at("10.0.2.2", token))) == "TOO_MANY_ATTEMPTS"

    async def test_only_the_answer_wrong_counts(self, identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
        user = await identity.newcomer()
        client = at("10.0.0.1")

        async def away(*_arguments: object) -> bool:
            raise ServiceError("OVERLOADED")

        with monkeypatch.context() as patched:
            patched.setattr(identity.passwords, "verify", away)
            for _ in range(3 * FREE_ATTEMPTS):
                assert await outcome(identity.credentials.log_in(user.email, PASSWORD, client)) == "OVERLOADED"
                await asyncio.sleep(0.01)
        with monkeypatch.context() as patched:
            patched.setattr(identity.passwords, "verify", lambda *_: asyncio.sleep(60))
            for _ in range(2 * FREE_ATTEMPTS):
                task = asyncio.create_task(identity.credentials.log_in(user.email, PASSWORD, client))
                await asyncio.sleep(0.02)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await asyncio.sleep(0.02)
        assert await outcome(identity.credentials.log_in(user.email, PASSWORD, client)) == "OK"

    async def test_a_burst_of_simultaneous_guesses_is_no_way_around(self, identity: Identity) -> None:
        user = await identity.newcomer()
        found = await asyncio.gather(*(guesses(identity, user, "10.0.0.1", 1) for _ in range(40)))
        assert sorted(reason for (reason,) in found) == ["INVALID_CREDENTIALS"] * 5 + ["TOO_MANY_ATTEMPTS"] * 35

    async def test_another_spelling_is_no_other_counter(self, identity: Identity) -> None:
        name = uuid.uuid4().hex
        user = await identity.users.register(f"\u00e1{name}i@example.com", PASSWORD, "New Comer")
        spellings = [user.email, user.email.upper(), unicodedata.normalize("NFD", user.email), user.email.title()]
        found = []
        for number in range(12):
            email = spellings[number % len(spellings)]
            found.append(await outcome(identity.credentials.log_in(email, "a wrong one", at("10.0.0.1"))))
        assert found.count("INVALID_CREDENTIALS") == FREE_ATTEMPTS
        assert await outcome(identity.credentials.log_in(spellings[2], PASSWORD, at("10.0.0.3"))) == "OK"
        dotted = user.email.replace("i@", "\u0130@")
        assert await outcome(identity.credentials.log_in(dotted, PASSWORD, at("10.0.0.4"))) == "INVALID_CREDENTIALS"

    async def test_an_id_that_is_typed_as_an_address_is_another_name(self, identity: Identity) -> None:
        user, tokens = await identity.granted()
        for _ in range(FREE_ATTEMPTS + 2):
            await outcome(identity.credentials.log_in(str(user.id), "a wrong one", at("10.0.0.1")))
        change = identity.credentials.change_password(user.id, session_of(tokens), PASSWORD, "another long password")
        assert await outcome(change) == "OK"

    async def test_nothing_is_kept_for_longer_than_an_hour(self, identity: Identity, platform: Platform) -> None:
        user = await identity.newcomer()
        async with platform.valkey() as valkey:
            await guesses(identity, user, "2001:db8::1", 3)
            await guesses(identity, user, "2001:db8::2", 4)
            # Tests beside this one guess, too, at other accounts.
            pattern = f"throttle:{{{_hash('address', user.email)}}}*"
            made = {key async for key in valkey.scan_iter(pattern, count=1000)}
            assert len(made) == 2
            for key in made:
                assert 0 < await valkey.ttl(key) <= 3600
                assert int(await valkey.memory_usage(key) or 0) < 400


class TestPasswords:
    async def test_a_password_in_another_normal_form_is_the_same(self, identity: Identity) -> None:
        password = "P\u00e4ssw\u00f6rter sind lang"
        user = await identity.users.register(f"{uuid.uuid4()}@example.com", password, "New Comer")
        typed = unicodedata.normalize("NFD", password)
        assert await outcome(identity.credentials.log_in(user.email, typed, at("10.0.0.1"))) == "OK"
        assert await outcome(identity.credentials.log_in(user.email, "a\x01b", at("10.0.0.1"))) == "INVALID_CREDENTIALS"

    @pytest.mark.parametrize("new", [PASSWORD, "qwertyuiop", "New Comer 123"])
    async def test_a_new_password_is_none_that_is_guessed_first(self, identity: Identity, new: str) -> None:
        user, tokens = await identity.granted()
        change = identity.credentials.change_password(user.id, session_of(tokens), PASSWORD, new)
        assert await outcome(change) == "INVALID_ARGUMENT"
        assert await identity.believed(user, session_of(tokens))

    async def test_a_hash_under_old_parameters_is_made_again_at_the_login(self, platform: Platform) -> None:
        async with opened(platform.layout, platform.secrets, Passwords(1, 8)) as identity:
            user = await identity.newcomer()
            old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
            async with identity.database.connection() as connection:
                await users.rehash(connection, user, old)
            first = await identity.credentials.log_in(user.email, PASSWORD, at("10.0.0.1"))
            now = await identity.users.get(user.id)
            assert now.password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
            assert (now.version, now.credential_version) == (user.version, user.credential_version)
            assert await identity.believed(user, session_of(first.tokens))
            assert await outcome(identity.credentials.log_in(user.email, PASSWORD, at("10.0.0.1"))) == "OK"


class TestAddresses:
    async def test_an_address_is_taken_in_every_spelling(self, identity: Identity) -> None:
        name = uuid.uuid4().hex
        await identity.users.register(f"\u00e1{name}@b\u00fccher.example", PASSWORD, "New Comer")
        for spelling in (f"\u00c1{name.upper()}@B\u00dcCHER.example", f"a\u0301{name}@xn--bcher-kva.example"):
            assert await outcome(identity.users.register(spelling, PASSWORD, "New Comer")) == "EMAIL_TAKEN"

    async def test_users_of_before_get_their_forms_and_the_elder_keeps_an_address(self, identity: Identity) -> None:
        name = uuid.uuid4().hex
        elder = await identity.users.register(f"\u00e1{name}@example.com", PASSWORD, f"\u0130stanbul {name}")
        younger = await identity.users.register(f"b{name}@example.com", PASSWORD, "New Comer")
        async with identity.database.connection() as connection:
            await connection.execute(
                "UPDATE users SET email_key = NULL, search_text = NULL, email = CASE id WHEN $1 THEN email ELSE $3 END "
                "WHERE id IN ($1, $2)",
                elder.id, younger.id, f"a\u0301{name}@example.com",
            )  # fmt: skip
        await identity.users.fill_forms()
        await identity.users.fill_forms()
        assert await outcome(identity.credentials.log_in(elder.email, PASSWORD, at("10.0.0.1"))) == "OK"
        async with identity.database.connection() as connection:
            found = await users.by_email(connection, f"\u00e1{name}@example.com")
            await connection.execute("DELETE FROM users WHERE id = $1", younger.id)
        assert found is not None
        assert found.id == elder.id

    async def test_a_user_is_found_by_any_spelling_of_the_name(self, identity: Identity) -> None:
        name = uuid.uuid4().hex
        user = await identity.users.register(f"{name}@example.com", PASSWORD, f"\u0130stanbul {name} Stra\u00dfe")
        for search in (
            user.display_name,
            user.display_name.upper(),
            f"\u0130STANBUL {name.upper()}",
            f"{name} strasse",
        ):
            assert [u.id for u in await identity.users.page(search, None, 5)] == [user.id], search
        assert await identity.users.page(f"%{name}", None, 5) == []


async def test_somebody_is_left_who_administers_users(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two administrators who take each other's role, or disable each other, at once."""
    everybody = queries.OTHER_ADMINISTRATOR_EXISTS
    for way in range(12):
        pair = [
            await identity.users.register(f"{uuid.uuid4()}@example.com", PASSWORD, "Admin Istrator", (Role.ADMIN,))
            for _ in range(2)
        ]
        # As if there were no others: those of the other tests must stay.
        ids = " OR ".join(f"id = '{user.id}'" for user in pair)
        monkeypatch.setattr(
            queries, "OTHER_ADMINISTRATOR_EXISTS", everybody.replace("id <> $1", f"id <> $1 AND ({ids})")
        )
        roles, status = ((Role.CUSTOMER,), None) if way % 2 else (None, UserStatus.DISABLED)
        changes = [identity.users.administer(user.id, roles, status, None) for user in pair]
        outcomes = await asyncio.gather(*map(outcome, changes))
        assert sorted(outcomes) == ["LAST_ADMINISTRATOR", "OK"]
        (left,) = [user for user, found in zip(pair, outcomes, strict=True) if found != "OK"]
        assert await outcome(identity.users.administer(left.id, (Role.SUPPORT,), None, None)) == "LAST_ADMINISTRATOR"
        both = identity.users.administer(left.id, (Role.ADMIN, Role.SUPPORT), UserStatus.ACTIVE, None)
        assert await outcome(both) == "OK"
