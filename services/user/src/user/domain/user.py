"""The user."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from user.domain.errors import StaleVersionError, UnknownRoleError


class UserStatus(StrEnum):
    """A disabled user can neither log in nor use a session."""

    ACTIVE = "active"
    DISABLED = "disabled"


class Role(StrEnum):
    """A named set of permissions (api/permissions.yaml)."""

    CUSTOMER = "customer"
    SUPPORT = "support"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class User:
    """Identity and profile; every change makes a new value with the next version."""

    id: UUID
    # As its owner spells it. Users are found by its canonical form (`email_address.canonical`).
    email: str
    display_name: str
    password_hash: str
    status: UserStatus
    roles: tuple[Role, ...]
    version: int
    # Replaced by everything that ends all sessions; never the same twice.
    credential_version: int
    created_at: datetime

    @property
    def is_active(self) -> bool:
        """Whether the user may log in."""
        return self.status is UserStatus.ACTIVE

    def with_sessions_ended(self) -> User:
        """The user with a new credential version, under which no session that was granted before is valid."""
        return replace(self, credential_version=new_credential_version())

    @property
    def administers_users(self) -> bool:
        """Whether the user can change the roles and status of others."""
        return self.is_active and Role.ADMIN in self.roles

    def require_version(self, version: int | None) -> None:
        """Check a conditional change.

        Raises:
            StaleVersionError: `version` is not None and not the current one.
        """
        if version is not None and version != self.version:
            raise StaleVersionError


def new_credential_version() -> int:
    """A value that no user has had. It is random, so that a version which a rolled-back transaction took never comes up again."""
    return 1 + secrets.randbits(62)


def parse_roles(names: list[str]) -> tuple[Role, ...]:
    """The roles of these names, without repetitions, in a fixed order.

    Raises:
        UnknownRoleError: one of them does not exist.
    """
    try:
        return tuple(sorted({Role(name) for name in names}))
    except ValueError as error:
        raise UnknownRoleError(str(error)) from error
