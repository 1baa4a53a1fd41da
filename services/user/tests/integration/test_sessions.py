"""Sessions over the real PostgreSQL and Valkey, with a clock of the test's own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from itertools import pairwise

import pytest
from chassis.errors import as_service_error
from contracts.user.v1.session_pb2 import Client, SessionRecord
from identity_races import BROWSER, GRACE, PAIRS, PASSWORD, Identity, QuickPasswords, opened, races, session_of
from user.domain.user import Role, User, UserStatus
from user.repository.sessions import MAX_SESSIONS, Stored
from user.service.refresh_tokens import RefreshTokens, parse

from conftest import Platform

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
THIEF = Client(user_agent="curl", address="127.0.0.9")


def reason(error: BaseException) -> str:
    known = as_service_error(error)
    assert known is not None, error
    return known.reason


async def refused(awaitable: Awaitable[object]) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever; its reason is what counts
        await awaitable
    return reason(caught.value)


@pytest.fixture
async def identity(platform: Platform) -> AsyncIterator[Identity]:
    async with opened(platform.layout, platform.secrets, QuickPasswords(random.Random(1))) as made:
        yield made


async def is_valid(identity: Identity, user: User, session_id: str) -> bool:
    """To the BFF; the User service must agree."""
    believed = await identity.believed(user, session_id) is not None
    try:
        await identity.sessions.valid(str(user.id), session_id)
    except Exception as error:
        assert reason(error) == "UNAUTHENTICATED"
        assert not believed
    else:
        assert believed
    return believed


async def test_races_of_every_pair_leave_no_session_that_a_revocation_came_after(identity: Identity) -> None:
    """A thousand rounds are `tools/identity_races.py`."""
    assert len(PAIRS) == 28
    found = await races(identity, rounds=8, seed=random.randrange(10**6))
    assert (found.rounds, found.problems) == (8 * 28, [])


async def ttl_days(platform: Platform, session_id: str) -> float:
    async with platform.valkey() as client:
        return float(await client.pttl(f"session:{session_id}")) / 86_400_000


async def test_a_session_lives_fourteen_idle_days_and_thirty_at_most(platform: Platform, identity: Identity) -> None:
    _, tokens = await identity.granted()
    assert 13.9 < await ttl_days(platform, session_of(tokens)) <= 14
    identity.clock.ahead += timedelta(days=20)
    tokens = await identity.sessions.refresh(tokens.refresh_token, BROWSER)
    assert 9.9 < await ttl_days(platform, session_of(tokens)) <= 10
    assert 9.9 * 86400 < tokens.refresh_expires_in <= 10 * 86400
    identity.clock.ahead += timedelta(days=10)
    assert await refused(identity.sessions.refresh(tokens.refresh_token, BROWSER)) == "INVALID_REFRESH_TOKEN"


async def test_of_too_many_sessions_of_one_address_the_last_are_short(platform: Platform, identity: Identity) -> None:
    """Whoever has accounts without number keeps no more than this."""
    here = Client(user_agent="browser", address=f"2001:db8:{random.randrange(2**16):x}:1::7")
    beside = Client(user_agent="browser", address=here.address.replace("::7", "::8"))
    elsewhere = Client(user_agent="browser", address=here.address.replace(":1::7", ":2::7"))
    identity.sessions._crowd = 3
    for client in (here, beside, here):
        _, usual = await identity.granted(client)
        assert 13.9 < await ttl_days(platform, session_of(usual)) <= 14
    user, crowded = await identity.granted(beside)
    assert 3500 < crowded.refresh_expires_in <= 3600
    assert 0.9 < await ttl_days(platform, session_of(crowded)) * 24 <= 1
    # It is one like every other, and an exchange makes it an hour again.
    assert await is_valid(identity, user, session_of(crowded))
    renewed = await identity.sessions.refresh(crowded.refresh_token, elsewhere)
    assert 3500 < renewed.refresh_expires_in <= 3600
    _, usual = await identity.granted(elsewhere)
    assert 13.9 < await ttl_days(platform, session_of(usual)) <= 14


async def test_last_seen_moves_at_most_once_a_minute_and_never_revives_a_session(identity: Identity) -> None:
    user, tokens = await identity.granted()
    me, session = str(user.id), session_of(tokens)

    async def seen() -> int:
        (record,) = await identity.sessions.list(me, session)
        return record.last_seen_at_ms

    first = await seen()
    identity.clock.ahead += timedelta(seconds=30)
    await identity.sessions.note_use(me, session)
    assert await seen() == first
    identity.clock.ahead += timedelta(seconds=31)
    await identity.sessions.note_use(me, session)
    assert await seen() >= first + 61_000
    stored = await identity.store.find(session)
    await identity.sessions.end_own(me, session)
    assert stored is not None
    assert not await identity.store.replace(stored, stored.record, prolong=False)
    assert not await is_valid(identity, user, session)


async def test_the_oldest_of_too_many_sessions_ends(identity: Identity) -> None:
    user, first = await identity.granted()
    for _ in range(MAX_SESSIONS):
        identity.clock.ahead += timedelta(seconds=1)
        last = await identity.sessions.grant(user, BROWSER)
    assert len(await identity.sessions.list(str(user.id), session_of(last))) == MAX_SESSIONS
    assert not await is_valid(identity, user, session_of(first))


async def test_a_session_is_its_users_only(identity: Identity) -> None:
    _, tokens = await identity.granted()
    other = await identity.newcomer()
    assert not await is_valid(identity, other, session_of(tokens))
    assert await refused(identity.sessions.end_own(str(other.id), session_of(tokens))) == "UNAUTHENTICATED"


class TestRefresh:
    async def test_a_spent_token_within_the_grace_gives_the_same_client_the_same_successor(
        self, identity: Identity
    ) -> None:
        user, first = await identity.granted()
        second = await identity.sessions.refresh(first.refresh_token, BROWSER)
        identity.clock.ahead += GRACE - timedelta(seconds=5)
        again = await identity.sessions.refresh(first.refresh_token, BROWSER)
        assert again.refresh_token == second.refresh_token != first.refresh_token
        assert await is_valid(identity, user, session_of(first))

    async def test_two_tabs_at_once_get_the_same_successor(self, identity: Identity) -> None:
        _, first = await identity.granted()
        answers = await asyncio.gather(*(identity.sessions.refresh(first.refresh_token, BROWSER) for _ in range(6)))
        assert len({answer.refresh_token for answer in answers}) == 1

    async def test_the_same_client_is_the_browser_with_the_cookie_or_the_agent_at_the_address(
        self, identity: Identity
    ) -> None:
        app = Client(user_agent="app", address="2001:db8::1")
        browser = Client(user_agent="browser", address="10.0.0.1", device_token="a device's own")
        same = [
            (app, Client(user_agent="app", address="2001:db8::2")),
            (browser, Client(user_agent="browser", address="192.0.2.9", device_token="a device's own")),
        ]
        others = [
            (app, Client(user_agent="app", address="2001:db8:0:1::1")),
            (app, Client(user_agent="another", address="2001:db8::1")),
            (app, Client(user_agent="app", address="2001:db8::1", device_token="another's")),
            (browser, Client(user_agent="browser", address="10.0.0.1")),
            (browser, Client(user_agent="browser", address="10.0.0.1", device_token="another's")),
        ]
        for (by, again), is_same in [*((pair, True) for pair in same), *((pair, False) for pair in others)]:
            user, first = await identity.granted(by)
            second = await identity.sessions.refresh(first.refresh_token, by)
            if is_same:
                repeated = await identity.sessions.refresh(first.refresh_token, again)
                assert repeated.refresh_token == second.refresh_token
            else:
                assert await refused(identity.sessions.refresh(first.refresh_token, again)) == "INVALID_REFRESH_TOKEN"
            assert await is_valid(identity, user, session_of(first)) is is_same

    @pytest.mark.parametrize("how", ["after the grace", "another client", "two generations ago"])
    async def test_any_other_use_of_a_spent_token_ends_the_session(self, identity: Identity, how: str) -> None:
        user, first = await identity.granted()
        second = await identity.sessions.refresh(first.refresh_token, BROWSER)
        if how == "after the grace":
            identity.clock.ahead += GRACE + timedelta(seconds=0.01)
        if how == "two generations ago":
            await identity.sessions.refresh(second.refresh_token, BROWSER)
        client = THIEF if how == "another client" else BROWSER
        assert await refused(identity.sessions.refresh(first.refresh_token, client)) == "INVALID_REFRESH_TOKEN"
        assert not await is_valid(identity, user, session_of(first))
        assert await refused(identity.sessions.refresh(second.refresh_token, BROWSER)) == "INVALID_REFRESH_TOKEN"

    async def test_what_was_never_issued_is_refused_and_ends_nothing(self, identity: Identity) -> None:
        user, tokens = await identity.granted()
        token = tokens.refresh_token
        parsed = parse(token)
        assert parsed is not None
        later = SessionRecord(id=parsed.session_id, generation=7, salt=b"guessed")
        forged = [
            "",
            "x",
            token[:-4],
            token + "AAAA",
            # The same bytes: the last character's lowest bits mean nothing, nor does padding.
            token[:-1] + _ALPHABET[_ALPHABET.index(token[-1]) ^ 1],
            token + "==",
            ("B" if token[0] != "B" else "C") + token[1:],
            token[:30] + ("B" if token[30] != "B" else "C") + token[31:],
            RefreshTokens("secret").current(later),
            RefreshTokens("another secret").current(await stored(identity, parsed.session_id)),
        ]
        for candidate in forged:
            assert await refused(identity.sessions.refresh(candidate, BROWSER)) == "INVALID_REFRESH_TOKEN", candidate
            await identity.sessions.end_by_token(candidate)
        assert await is_valid(identity, user, parsed.session_id)

    async def test_nothing_is_spent_by_a_refresh_that_fails_in_its_middle(self, identity: Identity) -> None:
        _, tokens = await identity.granted()
        pool = identity.database

        class AwayError(Exception):
            pass

        class Broken:
            def connection(self) -> object:
                raise AwayError

        identity.sessions._database = Broken()  # type: ignore[assignment]
        for _ in range(3):
            with pytest.raises(AwayError):
                await identity.sessions.refresh(tokens.refresh_token, BROWSER)
        identity.sessions._database = pool
        identity.clock.ahead += timedelta(hours=1)
        assert (await identity.sessions.refresh(tokens.refresh_token, BROWSER)).access_token

    async def test_a_token_that_valkey_has_forgotten_issuing_is_good(self, identity: Identity) -> None:
        user, tokens = await identity.granted()
        session = session_of(tokens)
        before = await identity.store.find(session)
        second = await identity.sessions.refresh(tokens.refresh_token, BROWSER)
        now = await identity.store.find(session)
        assert before is not None
        assert now is not None
        # As after a crash that lost the last second.
        assert await identity.store.replace(now, before.record, prolong=False)
        third = await identity.sessions.refresh(second.refresh_token, BROWSER)
        assert third.refresh_token not in (second.refresh_token, tokens.refresh_token)
        assert await is_valid(identity, user, session)

    async def test_a_logout_by_a_spent_token_ends_the_session(self, identity: Identity) -> None:
        user, first = await identity.granted()
        await identity.sessions.refresh(first.refresh_token, BROWSER)
        await identity.sessions.end_by_token(first.refresh_token)
        assert not await is_valid(identity, user, session_of(first))

    async def test_nothing_is_kept_of_spent_tokens(self, platform: Platform, identity: Identity) -> None:
        user, tokens = await identity.granted()
        async with platform.valkey() as valkey:

            async def kept() -> int:
                keys = [f"session:{session_of(tokens)}", f"sessions:{user.id}"]
                return sum([int(await valkey.memory_usage(key) or 0) for key in keys])

            tokens = await identity.sessions.refresh(tokens.refresh_token, BROWSER)
            before = await kept()
            for _ in range(20):
                tokens = await identity.sessions.refresh(tokens.refresh_token, BROWSER)
            assert await kept() <= before + 16
            raw = await valkey.get(f"session:{session_of(tokens)}")
            assert isinstance(raw, bytes)
            assert tokens.refresh_token.encode() not in raw


async def stored(identity: Identity, session_id: str) -> SessionRecord:
    found = await identity.store.find(session_id)
    assert found is not None
    return found.record


class TestRevocation:
    async def test_a_login_in_flight_while_the_password_changes_opens_no_session_that_lives_on(
        self, identity: Identity
    ) -> None:
        user, own = await identity.granted()
        # Verified before the change, granted after it.
        await identity.credentials.change_password(
            user.id, session_of(own), "a long enough password", "another long password"
        )
        late = await identity.sessions.grant(user, BROWSER)
        assert not await is_valid(identity, user, session_of(late))
        assert await refused(identity.sessions.refresh(late.refresh_token, BROWSER)) == "INVALID_REFRESH_TOKEN"
        assert await is_valid(identity, user, session_of(own))
        assert (await identity.sessions.refresh(own.refresh_token, BROWSER)).access_token

    async def test_a_cached_record_is_believed_no_more_from_the_change_on(
        self, identity: Identity, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also when nothing removes the sessions' own records."""

        async def stay(_: User) -> None:
            pass

        monkeypatch.setattr(identity.sessions, "remove_ended", stay)
        user, own = await identity.granted()
        other = await identity.sessions.grant(user, BROWSER)
        await identity.resolved(user)
        await identity.users.administer(user.id, (Role.SUPPORT,), None, None)
        believed = await identity.believed(user, session_of(own))
        assert believed is not None
        assert list(believed.roles) == ["support"]
        await identity.credentials.change_password(user.id, session_of(own), PASSWORD, "another long password")
        assert await identity.believed(user, session_of(other)) is None
        assert await identity.believed(user, session_of(own)) is not None
        await identity.users.administer(user.id, None, UserStatus.DISABLED, None)
        assert await identity.believed(user, session_of(own)) is None

    async def test_the_changing_session_lives_on_over_several_changes(self, identity: Identity) -> None:
        user, own = await identity.granted()
        words = ["a long enough password", "another long password", "a third long password"]
        for old, new in pairwise(words):
            await identity.credentials.change_password(user.id, session_of(own), old, new)
            assert await is_valid(identity, user, session_of(own))

    async def test_a_change_that_is_rolled_back_ends_nothing_and_keeps_nothing(self, identity: Identity) -> None:
        user, own = await identity.granted()
        other = await identity.sessions.grant(user, BROWSER)
        await identity.sessions.keep(session_of(own), user, 4711)
        assert await is_valid(identity, user, session_of(own))
        await identity.credentials.change_password(
            user.id, session_of(other), "a long enough password", "another long password"
        )
        assert not await is_valid(identity, user, session_of(own))
        assert await is_valid(identity, user, session_of(other))

    async def test_a_session_that_was_ended_everywhere_changes_no_password(self, identity: Identity) -> None:
        user, own = await identity.granted()
        record = await stored(identity, session_of(own))
        await identity.users.end_sessions(user.id)
        await identity.store.start(record)
        change = identity.credentials.change_password(
            user.id, session_of(own), "a long enough password", "another long password"
        )
        assert await refused(change) == "UNAUTHENTICATED"

    async def test_of_two_changes_by_one_session_at_once_the_second_changes_nothing(
        self, identity: Identity, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first keeps the session, whose record is of the second's credential version as well: only that the
        password is no longer the one that was verified tells them apart."""
        user, own = await identity.granted()
        new_hash, first = identity.passwords.hash, "another long password"

        async def meanwhile(password: str) -> str:
            monkeypatch.setattr(identity.passwords, "hash", new_hash)
            await identity.credentials.change_password(user.id, session_of(own), PASSWORD, first)
            return await new_hash(password)

        # After the second has verified the old password, and before it has hashed its own.
        monkeypatch.setattr(identity.passwords, "verify", QuickPasswords(random.Random(1)).verify)
        monkeypatch.setattr(identity.passwords, "hash", meanwhile)
        change = identity.credentials.change_password(user.id, session_of(own), PASSWORD, "a third long password")
        assert await refused(change) == "UNAUTHENTICATED"
        assert await identity.passwords.verify((await identity.users.get(user.id)).password_hash, first)
        assert await is_valid(identity, user, session_of(own))

    async def test_a_session_that_ends_while_it_changes_the_password_changes_nothing(
        self, identity: Identity, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was looked at before the end; the user, and so the version that is compared, is read after it."""
        user, own = await identity.granted()
        valid = identity.sessions.valid

        async def then_it_ends(user_id: str, session_id: str) -> Stored:
            found = await valid(user_id, session_id)
            await identity.users.end_sessions(user.id)
            # As if nobody had come to remove the record yet.
            await identity.store.start(found.record)
            return found

        monkeypatch.setattr(identity.sessions, "valid", then_it_ends)
        change = identity.credentials.change_password(user.id, session_of(own), PASSWORD, "another long password")
        assert await refused(change) == "UNAUTHENTICATED"
        monkeypatch.undo()
        assert await identity.passwords.verify((await identity.users.get(user.id)).password_hash, PASSWORD)
        assert not await is_valid(identity, user, session_of(own))

    async def test_ended_sessions_are_not_listed_and_not_kept(self, platform: Platform, identity: Identity) -> None:
        user, own = await identity.granted()
        await identity.sessions.grant(user, BROWSER)
        await identity.credentials.change_password(
            user.id, session_of(own), "a long enough password", "another long password"
        )
        assert [r.id for r in await identity.sessions.list(str(user.id), session_of(own))] == [session_of(own)]
        async with platform.valkey() as valkey:
            assert await valkey.zcard(f"sessions:{user.id}") == 1
