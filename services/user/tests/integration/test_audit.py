"""What the User service keeps in its audit trail, and what it says in the log alone."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from chassis import context
from chassis.audit import trail
from chassis.audit.acts import Act
from chassis.audit.trail import Filter
from chassis.context import RequestContext
from chassis.errors import ServiceError
from chassis.identity import Caller
from contracts.user.v1.session_pb2 import Client
from identity_races import BROWSER, PASSWORD, Identity, QuickPasswords, opened, session_of
from user.domain.errors import (
    EmailTakenError,
    InvalidCredentialsError,
    InvalidRefreshTokenError,
    NotFoundError,
    SessionEndedError,
    StaleVersionError,
)
from user.domain.user import Role, User, UserStatus
from user.repository.login_throttle import FREE_ATTEMPTS
from user.repository.sessions import MAX_SESSIONS

from conftest import Platform

ADMIN = "0197f7a5-6f0e-7a40-9b56-3c1d2e4f5a6b"
NEW_PASSWORD = "another long password"
HERE = "203.0.113.7"


@pytest.fixture
async def identity(platform: Platform) -> AsyncIterator[Identity]:
    async with opened(platform.layout, platform.secrets, QuickPasswords(random.Random(1))) as made:
        yield made


@pytest.fixture
def by_admin() -> RequestContext:
    return RequestContext("request-1", caller=Caller(ADMIN, "session", ("admin",)), address=HERE)


async def kept(identity: Identity, user: User) -> list[Act]:
    """What the trail has of a user; what happened at the same time by its name."""
    async with identity.database.connection() as connection:
        found = await trail.page(connection, Filter(subject=f"user/{user.id}"), None, 1000)
    return sorted(found, key=lambda act: (act.time, act.action))


def names(found: list[Act]) -> list[str]:
    return [act.action for act in found]


async def test_roles_statuses_and_passwords_are_kept_once_without_anything_secret(
    identity: Identity, by_admin: RequestContext
) -> None:
    user = await identity.newcomer()
    with pytest.raises(EmailTakenError):
        await identity.users.register(user.email, PASSWORD, "Somebody else")
    own = RequestContext("request-2", caller=Caller(str(user.id), "session", ("customer",)), address=HERE)
    with context.serving(own):
        await identity.users.update_profile(user.id, "Ada", None)
        tokens = (await identity.credentials.log_in(user.email, PASSWORD, BROWSER)).tokens
        session = session_of(tokens)
        with pytest.raises(InvalidCredentialsError):
            await identity.credentials.change_password(user.id, session, "a wrong one", NEW_PASSWORD)
        await identity.credentials.change_password(user.id, session, PASSWORD, NEW_PASSWORD)
    with context.serving(by_admin):
        with pytest.raises(StaleVersionError):
            await identity.users.administer(user.id, (Role.ADMIN,), None, 1)
        await identity.users.administer(user.id, (Role.CUSTOMER, Role.SUPPORT), UserStatus.DISABLED, None)
        # Nothing changes.
        await identity.users.administer(user.id, (Role.CUSTOMER, Role.SUPPORT), UserStatus.DISABLED, None)
        await identity.users.end_sessions(user.id)
    found = await kept(identity, user)
    me, admin = f"user/{user.id}", f"user/{ADMIN}"
    assert [(act.action, act.actor, act.before, act.after) for act in found] == [
        ("user.registered", me, {}, {"roles": ["customer"], "status": "active"}),
        ("user.logged_in", me, {}, {"session_id": session}),
        ("user.password_changed", me, {}, {}),
        ("user.sessions_ended", me, {}, {"kept_session_id": session}),
        ("user.roles_changed", admin, {"roles": ["customer"]}, {"roles": ["customer", "support"]}),
        ("user.sessions_ended", admin, {}, {}),
        ("user.status_changed", admin, {"status": "active"}, {"status": "disabled"}),
        ("user.sessions_ended", admin, {}, {}),
    ]
    assert [act.request_id for act in found] == ["", "request-2", "request-2", "request-2", *["request-1"] * 4]
    assert {act.address for act in found[1:]} == {HERE}
    stored = await identity.users.get(user.id)
    for secret in (PASSWORD, NEW_PASSWORD, user.password_hash, stored.password_hash, tokens.refresh_token, user.email):
        assert secret not in repr(found)


async def test_the_end_of_one_session_is_kept_with_its_reason(identity: Identity) -> None:
    user, first = await identity.granted()
    me = str(user.id)
    second, third = [await identity.sessions.grant(user, BROWSER) for _ in range(2)]
    with pytest.raises(NotFoundError):
        await identity.sessions.revoke(me, session_of(first), "0197f7a5-6f0e-7a40-9b56-3c1d2e4f5a6b")
    await identity.sessions.revoke(me, session_of(first), session_of(second))
    await identity.sessions.end_own(me, session_of(first))
    with pytest.raises(SessionEndedError):
        await identity.sessions.end_own(me, session_of(first))
    await identity.sessions.end_by_token(first.refresh_token)
    # A token that is used a second time, by somebody else.
    await identity.sessions.refresh(third.refresh_token, BROWSER)
    for _ in range(2):
        with pytest.raises(InvalidRefreshTokenError):
            await identity.sessions.refresh(third.refresh_token, Client(user_agent="curl", address="10.9.9.9"))
    fourth = await identity.sessions.grant(user, BROWSER)
    await identity.sessions.end_by_token(fourth.refresh_token)
    ended = [act for act in await kept(identity, user) if act.action == "user.session_ended"]
    assert [(act.actor, act.before, act.after) for act in ended] == [
        (f"user/{me}", {"session_id": session_of(second)}, {"reason": "revoked"}),
        (f"user/{me}", {"session_id": session_of(first)}, {"reason": "logged_out"}),
        ("", {"session_id": session_of(third)}, {"reason": "token_reused"}),
        (f"user/{me}", {"session_id": session_of(fourth)}, {"reason": "logged_out"}),
    ]


async def test_a_session_that_has_to_make_room_is_kept_as_well(identity: Identity) -> None:
    user, first = await identity.granted()
    for _ in range(MAX_SESSIONS):
        await identity.sessions.grant(user, BROWSER)
    ended = [act for act in await kept(identity, user) if act.action == "user.session_ended"]
    assert [(act.before, act.after) for act in ended] == [({"session_id": session_of(first)}, {"reason": "too_many"})]


async def test_no_session_is_given_or_ended_that_cannot_be_kept(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, tokens = await identity.granted()

    async def refused(*_: object) -> None:
        raise ServiceError("UNAVAILABLE")

    with monkeypatch.context() as broken:
        broken.setattr(trail, "write", refused)
        for awaitable in (
            identity.credentials.log_in(user.email, PASSWORD, BROWSER),
            identity.users.end_sessions(user.id),
            identity.credentials.change_password(user.id, session_of(tokens), PASSWORD, NEW_PASSWORD),
        ):
            with pytest.raises(ServiceError):
                await awaitable
    assert names(await kept(identity, user)) == ["user.registered", "user.logged_in"]
    await identity.sessions.valid(str(user.id), session_of(tokens))
    await identity.credentials.log_in(user.email, PASSWORD, BROWSER)


async def test_who_is_not_let_in_is_told_in_the_log_and_writes_no_rows(identity: Identity) -> None:
    user, nobody = await identity.newcomer(), "nobody@example.com"
    disabled = await identity.newcomer()
    await identity.users.administer(disabled.id, None, UserStatus.DISABLED, None)
    before = names(await kept(identity, user)), names(await kept(identity, disabled))
    at = Client(user_agent="browser", address=f"10.{random.randrange(256)}.{random.randrange(256)}.7")
    with structlog.testing.capture_logs() as logged, context.serving(RequestContext("request-3", address=at.address)):
        for email, password in (
            *[(user.email, "a wrong one")] * FREE_ATTEMPTS,
            (user.email, "a wrong one"),
            (disabled.email, PASSWORD),
            (nobody, "a wrong one"),
            ("my secret typed into the wrong field", "a wrong one"),
        ):
            with pytest.raises((InvalidCredentialsError, ServiceError)):
                await identity.credentials.log_in(email, password, at)
    told: list[Any] = [entry for entry in logged if entry["event"] == "audit"]
    me = f"user/{user.id}"
    assert [(line["action"], line["actor"], line["subject"], line["after"]["reason"]) for line in told] == [
        *[("user.login_failed", "", me, "wrong_password")] * FREE_ATTEMPTS,
        ("user.login_failed", "", "", "throttled"),
        ("user.login_failed", "", f"user/{disabled.id}", "disabled"),
        ("user.login_failed", "", "", "unknown_address"),
        ("user.login_failed", "", "", "unknown_address"),
    ]
    assert {(line["request_id"], line["address"]) for line in told} == {("request-3", at.address)}
    # Guesses at one account are known by its name, those that are throttled as well.
    accounts = [line["after"]["account"] for line in told]
    assert len(set(accounts[: FREE_ATTEMPTS + 1])) == 1
    assert accounts[-1] == ""
    assert len({*accounts}) == 4
    for secret in ("a wrong one", "my secret", user.email, nobody, PASSWORD):
        assert secret not in repr(told)
    assert (names(await kept(identity, user)), names(await kept(identity, disabled))) == before
