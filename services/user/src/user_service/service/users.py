"""Use cases of users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from chassis.cache import VersionedCache
from chassis.database import Connection, Database

from user_service.domain.errors import InvalidCredentialsError
from user_service.domain.user import Role, User, UserStatus
from user_service.repository import users
from user_service.service.passwords import Passwords


class UserUseCases:
    """Owns the transactions around users.

    Args:
        database: the user database.
        cache: user records for session checks; their floor is raised inside the transaction that changes them, so
            that taking a role away or disabling a user bites on the very next request.
        passwords: the hasher.
        now: the clock, UTC.
        new_id: makes time-ordered ids.
    """

    def __init__(
        self,
        *,
        database: Database,
        cache: VersionedCache,
        passwords: Passwords,
        now: Callable[[], datetime],
        new_id: Callable[[], UUID],
    ) -> None:
        self._database = database
        self._cache = cache
        self._passwords = passwords
        self._now = now
        self._new_id = new_id

    async def register(
        self, email: str, password: str, display_name: str, roles: tuple[Role, ...] = (Role.CUSTOMER,)
    ) -> User:
        """Create a user.

        Raises:
            EmailTakenError: the address is registered.
        """
        user = User(
            id=self._new_id(),
            email=email,
            display_name=display_name,
            password_hash=await self._passwords.hash(password),
            status=UserStatus.ACTIVE,
            roles=roles,
            version=1,
            created_at=self._now(),
        )
        async with self._database.transaction() as connection:
            return await users.insert(connection, user)

    async def authenticate(self, email: str, password: str) -> User:
        """The user whose address and password these are.

        Raises:
            InvalidCredentialsError: for a wrong address, a wrong password and a disabled user, in the same time.
        """
        async with self._database.connection() as connection:
            user = await users.by_email(connection, email)
        matches = await self._passwords.verify(user.password_hash if user else None, password)
        if user is None or not matches or not user.is_active:
            raise InvalidCredentialsError
        return user

    async def get(self, user_id: UUID) -> User:
        """One user.

        Raises:
            NotFoundError: there is none.
        """
        async with self._database.connection() as connection:
            return await users.get(connection, user_id)

    async def page(self, search: str, before: UUID | None, limit: int) -> list[User]:
        """Up to `limit` users, newest first, below the keyset `before`."""
        async with self._database.connection() as connection:
            return await users.page(connection, search, before, limit)

    async def update_profile(self, user_id: UUID, display_name: str, expected_version: int | None) -> User:
        """Change the profile.

        Raises:
            NotFoundError, StaleVersionError: as named.
        """
        async with self._database.transaction() as connection:
            user = await users.lock(connection, user_id)
            user.expect(expected_version)
            return await self._store(connection, replace(user, display_name=display_name))

    async def change_password(self, user_id: UUID, current: str, new: str) -> User:
        """Set a new password.

        Raises:
            NotFoundError: there is no such user.
            InvalidCredentialsError: the current password is wrong.
        """
        async with self._database.connection() as connection:
            user = await users.get(connection, user_id)
        if not await self._passwords.verify(user.password_hash, current):
            raise InvalidCredentialsError
        new_hash = await self._passwords.hash(new)
        async with self._database.transaction() as connection:
            locked = await users.lock(connection, user_id)
            # Somebody else changed it while we were hashing: what we verified is no longer the password.
            if locked.password_hash != user.password_hash:
                raise InvalidCredentialsError
            return await self._store(connection, replace(locked, password_hash=new_hash))

    async def administer(
        self,
        user_id: UUID,
        roles: tuple[Role, ...] | None,
        status: UserStatus | None,
        expected_version: int | None,
    ) -> User:
        """Change roles or status; None leaves it.

        Raises:
            NotFoundError, StaleVersionError: as named.
        """
        async with self._database.transaction() as connection:
            user = await users.lock(connection, user_id)
            user.expect(expected_version)
            changed = replace(user, roles=user.roles if roles is None else roles, status=status or user.status)
            return await self._store(connection, changed)

    async def _store(self, connection: Connection, user: User) -> User:
        stored = await users.update(connection, replace(user, version=user.version + 1), self._now())
        await self._cache.raise_floor({str(stored.id): stored.version})
        return stored
