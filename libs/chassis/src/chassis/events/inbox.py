"""What a consumer has acted on: a row for each event, written in the transaction of what it did.

So an event that is given again (its acknowledgement was lost, its process killed, its publisher unsure) finds its row, and
nothing is done a second time. A service that consumes has this table in its own database, by a migration of its own.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from chassis.database import Connection

# The table, as docs/events.md shows it for a migration.
TABLE = """\
CREATE TABLE event_inbox (
    consumer text NOT NULL,
    source text NOT NULL,
    event_id uuid NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, source, event_id)
);
CREATE INDEX event_inbox_handled_at ON event_inbox (handled_at);
"""
_NOTE = """\
-- name: NoteEvent
INSERT INTO event_inbox (consumer, source, event_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"""
_FORGET = """\
-- name: ForgetEvents
DELETE FROM event_inbox
WHERE ctid = ANY(ARRAY(SELECT ctid FROM event_inbox WHERE handled_at < now() - $1::interval LIMIT $2))"""


async def note(connection: Connection, consumer: str, source: str, event_id: UUID) -> bool:
    """Note in this transaction that the event is acted on; False when it has been before.

    Waits for another transaction that does the same at this moment.
    """
    return await connection.execute(_NOTE, consumer, source, event_id) == 1


async def forget(connection: Connection, memory: timedelta, most: int) -> int:
    """Forget events that were acted on longer ago, some of them; how many.

    By the clock that says when they were: by another one, which is wrong, all of them would be old.
    """
    return await connection.execute(_FORGET, memory, most)
