"""What the User service tells: each change once, without addresses and names."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import goldens
import pytest
from chassis.events import outbox
from contracts.user.v1 import events_pb2, user_pb2
from identity_races import BROWSER, PASSWORD, Identity, QuickPasswords, opened, session_of
from user.domain.errors import EmailTakenError
from user.domain.user import Role, UserStatus

from conftest import Platform


@pytest.fixture
async def identity(platform: Platform) -> AsyncIterator[Identity]:
    async with opened(platform.layout, platform.secrets, QuickPasswords(random.Random(1))) as made:
        yield made


async def test_what_happens_to_a_user_is_told_step_by_step(identity: Identity, platform: Platform) -> None:
    user = await identity.newcomer()
    with pytest.raises(EmailTakenError):
        await identity.users.register(user.email, PASSWORD, "Somebody else")
    await identity.users.update_profile(user.id, "Ada", None)
    tokens = (await identity.credentials.log_in(user.email, PASSWORD, BROWSER)).tokens
    await identity.credentials.change_password(user.id, session_of(tokens), PASSWORD, "another long password")
    await identity.users.end_sessions(user.id)
    await identity.users.administer(user.id, (Role.CUSTOMER, Role.SUPPORT), UserStatus.DISABLED, None)
    await identity.users.administer(user.id, None, UserStatus.ACTIVE, None)
    inside = await platform.database("userdb")
    try:
        rows = await inside.fetch(
            "SELECT id, type, subject, time, traceparent, data FROM outbox WHERE subject = $1 ORDER BY position",
            f"user/{user.id}",
        )
    finally:
        await inside.close()
    assert [row["type"] for row in rows] == [
        "user.v1.UserRegistered",
        "user.v1.UserChanged",
        "user.v1.PasswordChanged",
        "user.v1.UserChanged",
        "user.v1.UserDisabled",
        "user.v1.UserChanged",
    ]
    registered = events_pb2.UserRegistered.FromString(rows[0]["data"])
    assert (registered.user_id, list(registered.roles), registered.version) == (str(user.id), ["customer"], 1)
    changed = events_pb2.UserChanged.FromString(rows[3]["data"])
    assert (list(changed.roles), changed.status) == (["customer", "support"], user_pb2.USER_STATUS_DISABLED)
    disabled = events_pb2.UserDisabled.FromString(rows[4]["data"])
    assert disabled == events_pb2.UserDisabled(user_id=str(user.id), version=changed.version)
    assert all(user.email.encode() not in row["data"] and b"Ada" not in row["data"] for row in rows)
    goldens.check("events/a user.txt", goldens.told(outbox.event_of(row, "user") for row in rows))
