"""The user."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from user_service.domain.errors import StaleVersionError, UnknownRoleError


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
    email: str
    display_name: str
    password_hash: str
    status: UserStatus
    roles: tuple[Role, ...]
    version: int
    created_at: datetime

    @property
    def is_active(self) -> bool:
        """Whether the user may log in."""
        return self.status is UserStatus.ACTIVE

    def expect(self, version: int | None) -> None:
        """Check a conditional change.

        Raises:
            StaleVersionError: `version` is not None and not the current one.
        """
        if version is not None and version != self.version:
            raise StaleVersionError


def parse_roles(names: list[str]) -> tuple[Role, ...]:
    """The roles of these names, without repetitions, in a fixed order.

    Raises:
        UnknownRoleError: one of them does not exist.
    """
    try:
        return tuple(sorted({Role(name) for name in names}))
    except ValueError as error:
        raise UnknownRoleError(str(error)) from error
