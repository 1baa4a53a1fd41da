"""Preferences in PostgreSQL."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from notification.domain.preferences import Preferences
from notification.repository import queries
from notification.repository.queries import Connection


async def get(connection: Connection, user_id: UUID) -> Preferences:
    """What a user has chosen, or what holds for who has chosen nothing."""
    row = await queries.get_preferences(connection, user_id=user_id)
    return Preferences(user_id) if row is None else _preferences(row)


async def lock(connection: Connection, user_id: UUID, now: datetime) -> Preferences:
    """The same, the row locked until the transaction ends."""
    row = await queries.lock_preferences(connection, user_id=user_id, updated_at=now)
    if row is None:
        raise RuntimeError("INSERT … RETURNING has returned no row")
    return _preferences(row)


async def store(connection: Connection, preferences: Preferences, now: datetime) -> None:
    """What was locked, as it is now."""
    await queries.update_preferences(
        connection,
        user_id=preferences.user_id,
        switched_off=sorted(preferences.switched_off),
        version=preferences.version,
        updated_at=now,
    )


def _preferences(row: queries.Preference) -> Preferences:
    return Preferences(row.user_id, frozenset(row.switched_off), row.version)
