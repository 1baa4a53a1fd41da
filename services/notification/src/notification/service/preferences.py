"""Use cases around what users want to be written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from uuid import UUID

from chassis.database import Database

from notification.domain.mail import MailKind
from notification.domain.preferences import Preferences
from notification.repository import preferences


class PreferenceUseCases:
    """Owns the transactions.

    Args:
        database: the service's own.
        now: the clock, UTC.
    """

    def __init__(self, *, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def get(self, user_id: UUID) -> Preferences:
        """What a user wants."""
        async with self._database.connection() as connection:
            return await preferences.get(connection, user_id)

    async def switch(
        self, user_id: UUID, switches: Mapping[MailKind, bool], expected_version: int | None
    ) -> Preferences:
        """Switch kinds on (True) and off.

        Raises:
            AlwaysSentError, StaleVersionError: as named.
        """
        now = self._now()
        async with self._database.transaction() as connection:
            before = await preferences.lock(connection, user_id, now)
            before.require_version(expected_version)
            changed = before.switched(switches)
            if changed is not before:
                await preferences.store(connection, changed, now)
        return changed
