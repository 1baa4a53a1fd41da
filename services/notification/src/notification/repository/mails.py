"""Mails in PostgreSQL: what is to be sent, by whom it is being sent, and what became of it."""

from __future__ import annotations

from notification.domain.mail import Mail, MailKind, MailState
from notification.repository import queries
from notification.repository.queries import Connection

# Counted no further: it is many, however many more.
_MOST_COUNTED = 100_000
_KINDS = [kind.value for kind in MailKind]


# leaves out: attempts
async def note(connection: Connection, mail: Mail) -> None:
    """A mail that is to be sent; nothing when its event has one already."""
    await queries.insert_mail(
        connection,
        event_id=mail.event_id,
        kind=mail.kind,
        user_id=mail.user_id,
        data=mail.data,
        occurred_at=mail.occurred_at,
        traceparent=mail.traceparent,
    )


async def claim(connection: Connection, most: int, lease_seconds: float) -> list[Mail]:
    """Up to so many mails that are due, which nobody else begins before the lease is over."""
    found = await queries.claim_mails(connection, lease_seconds=lease_seconds, kinds=_KINDS, row_limit=most)
    return [
        Mail(
            event_id=row.event_id,
            kind=MailKind(row.kind),
            user_id=row.user_id,
            data=row.data,
            occurred_at=row.occurred_at,
            traceparent=row.traceparent,
            attempts=row.attempts,
        )
        for row in found
    ]


async def end(connection: Connection, mail: Mail, state: MailState, error: str = "") -> bool:
    """Nothing more is done about it; False when somebody else has it by now."""
    ended = await queries.end_mail(
        connection, state=queries.MailState(state), error=error, event_id=mail.event_id, attempts=mail.attempts
    )
    return ended == 1


async def postpone(connection: Connection, mail: Mail, pause_seconds: float, error: str, *, counts: bool) -> bool:
    """It is tried again after the pause, and this attempt counts or not; False when somebody else has it by now."""
    postponed = await queries.postpone_mail(
        connection,
        pause_seconds=pause_seconds,
        error=error,
        uncounted=0 if counts else 1,
        event_id=mail.event_id,
        attempts=mail.attempts,
    )
    return postponed == 1


async def waiting(connection: Connection) -> tuple[int, float]:
    """How many are to be sent, and since how many seconds the eldest is."""
    found = await queries.measure_mails(connection, most=_MOST_COUNTED)
    return (0, 0.0) if found is None else (found.waiting, found.age)


async def recall(connection: Connection, furthest_seconds: float) -> int:
    """Have those begun at once that are put off further than that; how many there were."""
    return await queries.recall_mails(connection, furthest_seconds=furthest_seconds)


async def forget(connection: Connection, memory_seconds: float, most: int) -> int:
    """Delete up to so many of which nothing more was done for so long; how many there were."""
    return await queries.forget_mails(connection, memory_seconds=memory_seconds, row_limit=most)
