"""Use cases around entries."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from chassis.database import Database

from sample.domain.entry import Content, Entry
from sample.repository import entries


class EntryUseCases:
    """Owns the transactions.

    Args:
        database: the service's own.
        now: the clock, UTC.
        new_id: makes time-ordered ids.
    """

    def __init__(self, *, database: Database, now: Callable[[], datetime], new_id: Callable[[], UUID]) -> None:
        self._database = database
        self._now = now
        self._new_id = new_id

    async def create(self, user_id: UUID, content: Content) -> Entry:
        """Keep a new entry of a user."""
        entry = Entry(id=self._new_id(), user_id=user_id, content=content, created_at=self._now())
        async with self._database.transaction() as connection:
            return await entries.insert(connection, entry)

    async def get(self, user_id: UUID, entry_id: UUID) -> Entry:
        """One entry of a user.

        Raises:
            NotFoundError: they have none of this id.
        """
        async with self._database.connection() as connection:
            entry = await entries.get(connection, entry_id)
        entry.require_visible_to(user_id)
        return entry

    async def page(self, user_id: UUID, after: tuple[datetime, UUID] | None, limit: int) -> list[Entry]:
        """Up to `limit` entries of a user, newest first, after the keyset (created_at, id)."""
        async with self._database.connection() as connection:
            return await entries.page(connection, user_id, after, limit)
