"""What an entry of the audit trail is, wherever it is kept."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from chassis import context
from chassis.ids import uuid7

# What a value is, by name. They are few, each act chooses its own, and none is an object of the domain as a whole.
Value = str | int | bool | Sequence[str]
Values = Mapping[str, Value]

ACTION = re.compile(r"[a-z_]+\.[a-z_]+")
_LONGEST_ACTION, _LONGEST_NAME, _LONGEST_TEXT = 64, 128, 1000
# The largest integer that every reader of JSON keeps (RFC 8259, section 6).
_LARGEST = 2**53 - 1
_SECRET = re.compile(r"password|secret|token|hash|private|credential")
NOTHING: Values = {}


@dataclass(frozen=True, slots=True)
class Act:
    """Something that matters to security has been done."""

    # A UUIDv7 of `time`: acts of all services are in the order of their ids.
    id: UUID
    # When, UTC.
    time: datetime
    # What: "product.price_changed".
    action: str
    # Who: "user/ID", "service/NAME", "operator/NAME"; empty when nobody knows.
    actor: str
    # To what: "product/ID"; empty when that is not known.
    subject: str
    # Of the request that did it, and where that came from; empty for what no request did.
    request_id: str = ""
    address: str = ""
    # What was so, and what is so now.
    before: Values = field(default_factory=dict)
    after: Values = field(default_factory=dict)


def act(
    action: str,
    subject: str,
    time: datetime,
    *,
    actor: str,
    before: Values = NOTHING,
    after: Values = NOTHING,
) -> Act:
    """An act within the request that is being served, if one is.

    Args:
        action: what was done, "noun.done".
        subject: to what, "kind/ID"; empty when that is not known.
        time: when, UTC.
        actor: who did it; empty when nobody knows.
        before: what was so, of what has changed. Nothing that is secret.
        after: what is so now.

    Raises:
        ValueError: a name or a value is none that the trail takes; a programming error.
    """
    if not ACTION.fullmatch(action) or len(action) > _LONGEST_ACTION:
        raise ValueError(f"{action!r} is no action, like product.price_changed")
    for name in (subject, actor):
        if name and (len(name) > _LONGEST_NAME or "/" not in name):
            raise ValueError(f"{name!r} is no name of something, like product/ID")
    current = context.current()
    return Act(
        id=uuid7(time),
        time=time,
        action=action,
        actor=actor,
        subject=subject,
        request_id=current.request_id if current else "",
        address=current.address if current else "",
        before={name: _kept(name, value) for name, value in before.items()},
        after={name: _kept(name, value) for name, value in after.items()},
    )


def caller(service: str) -> str:
    """Who does what is being done: the user who calls, the service itself outside of requests, nobody known in an anonymous one."""
    current = context.current()
    if current is None:
        return f"service/{service}"
    return user(current.caller.user_id) if current.caller else ""


def user(user_id: UUID | str) -> str:
    """The name of a user, as actor or as subject."""
    return f"user/{user_id}"


def operator() -> str:
    """The name of whoever runs a command on the server, as the system knows them: of the environment's they can say anything."""
    user_id = os.getuid()
    try:
        return f"operator/{pwd.getpwuid(user_id).pw_name}"
    except KeyError:
        # A container whose user has no name.
        return f"operator/{user_id}"


def _kept(name: str, value: Value) -> Value:
    if _SECRET.search(name):
        raise ValueError(f"{name} looks like a secret, and an audit trail is no place for one")
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) > _LARGEST:
            raise ValueError(f"{name} is {value}, which not every reader of JSON keeps")
        return value
    # Text that somebody has entered is bounded by its contract; what is longer all the same is cut and not refused.
    if isinstance(value, str):
        return value[:_LONGEST_TEXT]
    return [text[:_LONGEST_TEXT] for text in value]
