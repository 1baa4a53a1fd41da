"""The table `audit` of a service's database, to which its role adds and from which it takes nothing away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import msgspec

from chassis.audit.acts import Act
from chassis.ids import first_uuid7

if TYPE_CHECKING:
    from chassis.database import Connection

_WRITE = """-- name: WriteAudit
INSERT INTO audit (id, time, action, actor, subject, request_id, address, before, after)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                     $8::jsonb[], $9::jsonb[])
"""
_READ = """-- name: ReadAudit
SELECT id, time, action, actor, subject, request_id, address, before, after FROM audit"""
_FORGET = """-- name: ForgetAudit
SELECT forget_audit($1) AS forgotten
"""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which acts; None does not filter."""

    actor: str | None = None
    subject: str | None = None
    action: str | None = None
    # Inclusive, and exclusive.
    occurred_from: datetime | None = None
    occurred_before: datetime | None = None


async def write(connection: Connection, acts: Sequence[Act]) -> None:
    """Add acts, in the transaction of what has been done."""
    await connection.execute(
        _WRITE,
        [act.id for act in acts],
        [act.time for act in acts],
        [act.action for act in acts],
        [act.actor for act in acts],
        [act.subject for act in acts],
        [act.request_id for act in acts],
        [act.address for act in acts],
        [_json(act.before) for act in acts],
        [_json(act.after) for act in acts],
    )


async def page(connection: Connection, where: Filter, before: UUID | None, limit: int) -> list[Act]:
    """Up to `limit` acts, newest first, below the keyset `before`."""
    conditions: list[str] = []
    arguments: list[object] = []

    def only(condition: str, *values: object) -> None:
        places = [f"${len(arguments) + number}" for number in range(1, len(values) + 1)]
        conditions.append(condition.format(*places))
        arguments.extend(values)

    if before is not None:
        only("id < {}", before)
    for column, value in (("actor", where.actor), ("subject", where.subject), ("action", where.action)):
        if value is not None:
            only(f"{column} = {{}}", value)
    # An id begins with the millisecond of its time: the primary key finds the place, and `time` decides.
    if where.occurred_from is not None:
        only("id >= {} AND time >= {}", first_uuid7(where.occurred_from), where.occurred_from)
    if where.occurred_before is not None:
        only(
            "id <= {} AND time < {}",
            UUID(int=first_uuid7(where.occurred_before).int | (1 << 80) - 1),
            where.occurred_before,
        )
    wanted = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    arguments.append(limit)
    rows = await connection.fetch(f"{_READ}{wanted} ORDER BY id DESC LIMIT ${len(arguments)}", *arguments)
    return [_act(row) for row in rows]


async def forget(connection: Connection, most: int) -> int:
    """Delete up to `most` of the eldest acts that are older than the table's own function lets go; how many there were."""
    row = await connection.fetchrow(_FORGET, most)
    return row["forgotten"] if row else 0


def _json(values: object) -> str:
    return msgspec.json.encode(values).decode()


def _act(row: asyncpg.Record) -> Act:
    return Act(
        id=row["id"],
        time=row["time"],
        action=row["action"],
        actor=row["actor"],
        subject=row["subject"],
        request_id=row["request_id"],
        address=row["address"],
        before=msgspec.json.decode(row["before"]),
        after=msgspec.json.decode(row["after"]),
    )
