"""Entries in PostgreSQL."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sample.domain.entry import Content, Entry
from sample.domain.errors import NotFoundError
from sample.repository import queries
from sample.repository.queries import Connection


async def insert(connection: Connection, entry: Entry) -> Entry:
    """A new entry."""
    row = await queries.insert_entry(
        connection,
        id=entry.id,
        user_id=entry.user_id,
        text=entry.content.text,
        created_at=entry.created_at,
    )
    if row is None:
        raise RuntimeError("INSERT … RETURNING has returned no row")
    return _entry(row)


async def get(connection: Connection, entry_id: UUID) -> Entry:
    """One entry.

    Raises:
        NotFoundError: there is none.
    """
    row = await queries.get_entry(connection, id=entry_id)
    if row is None:
        raise NotFoundError
    return _entry(row)


async def page(connection: Connection, user_id: UUID, after: tuple[datetime, UUID] | None, limit: int) -> list[Entry]:
    """Up to `limit` entries of a user, newest first, after the keyset (created_at, id)."""
    found = await queries.list_entries(
        connection,
        user_id=user_id,
        after_created_at=after[0] if after else None,
        after_id=after[1] if after else None,
        row_limit=limit,
    )
    return [_entry(row) for row in found]


def _entry(row: queries.Entry) -> Entry:
    content = Content(text=row.text)
    return Entry(id=row.id, user_id=row.user_id, content=content, created_at=row.created_at)
