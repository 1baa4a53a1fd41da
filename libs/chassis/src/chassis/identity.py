"""Who is calling."""

from __future__ import annotations

from functools import lru_cache

import msgspec
from contracts.permissions import ROLE_PERMISSIONS, Permission


@lru_cache(maxsize=256)
def permissions_of(roles: tuple[str, ...]) -> frozenset[Permission]:
    """Every permission that any of `roles` grants; an unknown role grants none."""
    return frozenset().union(*(ROLE_PERMISSIONS.get(role, frozenset()) for role in roles))


class Caller(msgspec.Struct, frozen=True):
    """An authenticated user, as the BFF has verified it."""

    user_id: str
    session_id: str
    roles: tuple[str, ...]

    def may(self, permission: Permission) -> bool:
        """Whether one of the caller's roles grants `permission`."""
        return permission in permissions_of(self.roles)
