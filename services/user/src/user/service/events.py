"""What the User service tells, of what has happened in its domain (api/proto/user/v1/events.proto)."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from contracts.user.v1 import events_pb2
from google.protobuf.message import Message

from user.domain.user import User
from user.service import records


# does not pass on: created_at, credential_version, display_name, email, password_hash, status
def registered(user: User) -> events_pb2.UserRegistered:
    """Somebody has registered."""
    return events_pb2.UserRegistered(user_id=str(user.id), roles=user.roles, version=user.version)


def of_change(before: User, user: User) -> Iterator[Message]:
    """What a change tells. Nothing when it has only ended the user's sessions, which nobody else knows."""
    if (user.display_name, user.roles, user.status) != (before.display_name, before.roles, before.status):
        yield events_pb2.UserChanged(
            user_id=str(user.id), roles=user.roles, status=records.STATUS[user.status], version=user.version
        )
    if before.is_active and not user.is_active:
        yield events_pb2.UserDisabled(user_id=str(user.id), version=user.version)


def password_changed(user_id: UUID, version: int) -> events_pb2.PasswordChanged:
    """A user has another password, by this version of theirs."""
    return events_pb2.PasswordChanged(user_id=str(user_id), version=version)
