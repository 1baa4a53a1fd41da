"""The table `outbox` of a service's database: what its transactions have recorded and the broker does not have yet.

A position is given to an event while its transaction holds the lock on what it happened to. So of one subject positions
grow in the order of its changes, whatever commits when. Of different subjects they say nothing: a transaction that commits
late adds a low position after higher ones have been published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
from contracts.common.v1 import options_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from chassis import context
from chassis.events.event import Event
from chassis.tracing import spans

if TYPE_CHECKING:
    from chassis.database import Connection

# Told on this channel that there is something to publish; by whoever has committed it, after it has.
CHANNEL = "outbox"
_SCHEMA_PREFIX = "urn:backend:event:"
_LAST_POSITION = 2**63 - 1
# Counted no further: it is many, however many more.
_MOST_COUNTED = 1_000_000

_WRITE = """-- name: WriteOutbox
INSERT INTO outbox (id, type, subject, time, traceparent, data)
SELECT id, type, subject, time, traceparent, data
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::bytea[])
     WITH ORDINALITY AS recorded (id, type, subject, time, traceparent, data, place)
ORDER BY place
"""
_UNPUBLISHED = """-- name: ReadOutbox
SELECT position, id, type, subject, time, traceparent, data,
       (SELECT max(position) FROM outbox WHERE published_at IS NULL) AS last
FROM outbox
WHERE published_at IS NULL AND position > $1 AND position <= $2
ORDER BY position
LIMIT $3
"""
_PUBLISHED = """-- name: MarkPublished
UPDATE outbox SET published_at = now() WHERE position = ANY($1::bigint[])
"""
# The eldest are the first; looking no further than at as many as are deleted needs no index.
_FORGET = """-- name: ForgetPublished
DELETE FROM outbox WHERE position IN (
    SELECT position FROM (SELECT position, published_at FROM outbox ORDER BY position LIMIT $2) AS eldest
    WHERE published_at < now() - $1::interval
)
"""
_WAITING = """-- name: MeasureOutbox
SELECT (SELECT count(*) FROM (SELECT FROM outbox WHERE published_at IS NULL LIMIT $1) AS waiting) AS depth,
       coalesce(extract(epoch FROM now() - (SELECT recorded_at FROM outbox WHERE published_at IS NULL
                                            ORDER BY position LIMIT 1)), 0)::float8 AS age
"""
# A lease that ends later than any would is of a clock that was ahead.
_TAKE = """-- name: TakeOutboxLease
UPDATE outbox_lease SET holder = $1, until = now() + $2::interval
WHERE holder = $1 OR until < now() OR until > now() + 2 * $2::interval
"""
_GIVE_UP = """-- name: GiveUpOutboxLease
UPDATE outbox_lease SET until = now() WHERE holder = $1
"""
_NOTIFY = f"""-- name: NotifyOutbox
SELECT pg_notify('{CHANNEL}', '')
"""


@dataclass(frozen=True, slots=True)
class Row:
    """An event, and its place in the outbox."""

    position: int
    event: Event


@dataclass(frozen=True, slots=True)
class Page:
    """Some of what is not published, in the order of positions, and the last position of all of it at that moment."""

    rows: Sequence[Row]
    last: int


def event(source: str, event_id: UUID, subject_id: UUID, message: Message, time: datetime) -> Event:
    """What a transaction records: `message`, which happened to the subject of this id at this time (UTC).

    Raises:
        ValueError: the message's contract does not say that it is an event.
    """
    kind = _kind(message.DESCRIPTOR)
    span, current = spans.innermost(), context.current()
    return Event(
        id=event_id,
        source=source,
        type=kind.type,
        subject=f"{kind.subject}/{subject_id}",
        time=time,
        dataschema=_SCHEMA_PREFIX + kind.type,
        traceparent=span.traceparent() if span else current.traceparent if current else "",
        data=message.SerializeToString(),
    )


@dataclass(frozen=True, slots=True)
class _Kind:
    type: str
    subject: str


@lru_cache(maxsize=256)
def _kind(descriptor: Descriptor) -> _Kind:
    subject = descriptor.GetOptions().Extensions[options_pb2.event].subject
    if not subject:
        raise ValueError(f"{descriptor.full_name} is no event: it has no option (common.v1.event)")
    return _Kind(descriptor.full_name, subject)


async def write(connection: Connection, events: Sequence[Event]) -> None:
    """Record events, in this order, in the transaction of what has happened."""
    await connection.execute(
        _WRITE,
        [event.id for event in events],
        [event.type for event in events],
        [event.subject for event in events],
        [event.time for event in events],
        [event.traceparent for event in events],
        [event.data for event in events],
    )


async def unpublished(
    connection: Connection, source: str, after: int, limit: int, until: int | None = None
) -> Page | None:
    """Up to `limit` events that are not marked as published, with positions above `after`, up to `until`; None: no more.

    Whoever reads page after page gives the first one's `last` as the end of all others. Without it, a later page could have
    an event of a subject of which an earlier one was committed only after its page had been read.
    """
    rows = await connection.fetch(_UNPUBLISHED, after, _LAST_POSITION if until is None else until, limit)
    if not rows:
        return None
    return Page([Row(row["position"], event_of(row, source)) for row in rows], rows[0]["last"])


async def mark_published(connection: Connection, positions: Sequence[int]) -> None:
    """The broker has these."""
    await connection.execute(_PUBLISHED, positions)


async def forget_published(connection: Connection, kept: timedelta, limit: int) -> int:
    """Delete up to `limit` events that were published longer ago; how many there were."""
    return await connection.execute(_FORGET, kept, limit)


async def waiting(connection: Connection) -> tuple[int, float]:
    """How many events are not published, and since how many seconds the eldest is not."""
    row = await connection.fetchrow(_WAITING, _MOST_COUNTED)
    return (0, 0.0) if row is None else (row["depth"], row["age"])


async def take_lease(connection: Connection, holder: UUID, length: timedelta) -> bool:
    """Be the one that publishes, from now on for so long; False while somebody else is."""
    return await connection.execute(_TAKE, holder, length) == 1


async def give_up_lease(connection: Connection, holder: UUID) -> None:
    """Let somebody else be."""
    await connection.execute(_GIVE_UP, holder)


async def notify(connection: Connection) -> None:
    """Tell whoever publishes that there is something."""
    await connection.execute(_NOTIFY)


def event_of(row: asyncpg.Record, source: str) -> Event:
    """The event that a row of the outbox of `source` records."""
    return Event(
        id=row["id"],
        source=source,
        type=row["type"],
        subject=row["subject"],
        time=row["time"],
        dataschema=_SCHEMA_PREFIX + row["type"],
        traceparent=row["traceparent"],
        data=row["data"],
    )
