"""Use cases of users."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from uuid import UUID

import structlog
from chassis.cache import VersionedCache
from chassis.database import Database, Transaction
from contracts.user.v1 import user_pb2

from user.domain.email_address import canonical
from user.domain.errors import LastAdministratorError, NotFoundError
from user.domain.user import Role, User, UserStatus, new_credential_version
from user.repository import users
from user.service import acts, events, records
from user.service.password_rules import PasswordRules
from user.service.passwords import Passwords
from user.service.sessions import Sessions

_BATCH = 500
_log = structlog.get_logger(__name__)


class UserUseCases:
    """Owns the transactions around users.

    Args:
        database: the user database.
        cache: user records for session checks; their floor is raised inside the transaction that changes them, so
            that taking a role away or disabling a user takes effect on the very next request.
        passwords: the hasher.
        rules: what a password may be.
        sessions: they end when a user's credential version changes.
        now: the clock, UTC.
        new_id: makes time-ordered ids.
    """

    def __init__(
        self,
        *,
        database: Database,
        cache: VersionedCache,
        passwords: Passwords,
        rules: PasswordRules,
        sessions: Sessions,
        now: Callable[[], datetime],
        new_id: Callable[[], UUID],
    ) -> None:
        self._database = database
        self._cache = cache
        self._passwords = passwords
        self._rules = rules
        self._sessions = sessions
        self._now = now
        self._new_id = new_id

    async def register(
        self,
        email: str,
        password: str,
        display_name: str,
        roles: tuple[Role, ...] = (Role.CUSTOMER,),
        actor: str | None = None,
    ) -> User:
        """Create a user.

        Args:
            email: where they are reached, and log in with.
            password: theirs.
            display_name: what others see.
            roles: what they may do.
            actor: who does so, for the audit trail; None: the user.

        Raises:
            InvalidFieldError: the address is none, or the password one that is refused.
            EmailTakenError: the address is registered, in this or another spelling.
        """
        email = unicodedata.normalize("NFC", email)
        canonical(email)
        password = self._rules.acceptable(password, field="/password", email=email, display_name=display_name)
        user = User(
            id=self._new_id(),
            email=email,
            display_name=display_name,
            password_hash=await self._passwords.hash(password),
            status=UserStatus.ACTIVE,
            roles=roles,
            version=1,
            credential_version=new_credential_version(),
            created_at=self._now(),
        )
        async with self._database.transaction() as connection:
            registered = await users.insert(connection, user)
            connection.record(user.id, events.registered(registered), user.created_at)
            acts.registered(connection, registered, actor)
        return registered

    async def get(self, user_id: UUID) -> User:
        """One user.

        Raises:
            NotFoundError: there is none.
        """
        async with self._database.connection() as connection:
            return await users.get(connection, user_id)

    async def contact(self, user_id: UUID) -> User:
        """One user, as somebody who is to be written to.

        Raises:
            NotFoundError: there is none, or they are disabled.
        """
        user = await self.get(user_id)
        if not user.is_active:
            raise NotFoundError
        return user

    async def resolve(self, user_id: UUID) -> user_pb2.User:
        """One user as they are shown; cached for the session checks of the BFF, which reads the cache itself.

        Raises:
            NotFoundError: there is none.
        """
        user = records.user(await self.get(user_id))
        await self._cache.offer(user.id, user.version, user.SerializeToString())
        return user

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
            user.require_version(expected_version)
            return await self._store(connection, user, replace(user, display_name=display_name))

    async def administer(
        self,
        user_id: UUID,
        roles: tuple[Role, ...] | None,
        status: UserStatus | None,
        expected_version: int | None,
    ) -> User:
        """Change roles or status; None leaves it. A change of the status ends all sessions of the user.

        Raises:
            NotFoundError, StaleVersionError: as named.
            LastAdministratorError: nobody would be left who administers users.
        """
        async with self._database.transaction() as connection:
            user = await users.lock(connection, user_id)
            user.require_version(expected_version)
            changed = replace(user, roles=user.roles if roles is None else roles, status=status or user.status)
            loses_administrator = user.administers_users and not changed.administers_users
            if loses_administrator and not await users.another_administers(connection, user_id):
                raise LastAdministratorError
            if changed.status is not user.status:
                changed = changed.with_sessions_ended()
            stored = await self._store(connection, user, changed)
        await self._sessions.remove_ended(stored)
        return stored

    async def end_sessions(self, user_id: UUID) -> None:
        """End all sessions of a user, those that are being granted in this moment included.

        Raises:
            NotFoundError: there is no such user.
        """
        async with self._database.transaction() as connection:
            user = await users.lock(connection, user_id)
            stored = await self._store(connection, user, user.with_sessions_ended())
        await self._sessions.remove_ended(stored)

    async def fill_forms(self) -> None:
        """Give canonical forms to users that were stored before there were any. May be repeated, and done by several at once."""
        after: UUID | None = None
        while True:
            async with self._database.connection() as connection:
                batch = await users.without_forms(connection, after, _BATCH)
                for user in batch:
                    if not await users.fill_forms(connection, user):
                        _log.warning("no login by this user's address: it is none, or another's", user_id=str(user.id))
            if len(batch) < _BATCH:
                return
            after = batch[-1].id

    async def _store(self, connection: Transaction, before: User, changed: User) -> User:
        now = self._now()
        stored = await users.update(connection, replace(changed, version=before.version + 1), now)
        for event in events.of_change(before, stored):
            connection.record(stored.id, event, now)
        acts.changed(connection, before, stored, now)
        await self._cache.raise_floor({str(stored.id): stored.version})
        return stored
