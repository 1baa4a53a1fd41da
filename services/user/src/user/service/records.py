"""A user as they are shown, which is also the record that every session check reads from the cache."""

from __future__ import annotations

from contracts.user.v1 import user_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from user.domain.user import User, UserStatus

STATUS = {status: user_pb2.UserStatus.Value(f"USER_STATUS_{status.name}") for status in UserStatus}


# does not pass on: password_hash
def user(value: User) -> user_pb2.User:
    """A user message."""
    created_at = Timestamp()
    created_at.FromDatetime(value.created_at)
    return user_pb2.User(
        id=str(value.id),
        email=value.email,
        display_name=value.display_name,
        status=STATUS[value.status],
        roles=[role.value for role in value.roles],
        version=value.version,
        created_at=created_at,
        credential_version=value.credential_version,
    )
