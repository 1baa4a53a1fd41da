"""What the User service keeps in its audit trail, and what it says in the log alone (docs/audit.md)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from chassis.audit import acts, lines
from chassis.database import Transaction

from user.domain.user import User


class Ended(StrEnum):
    """Why one session has ended."""

    LOGGED_OUT = "logged_out"
    # Its user has ended it from another one.
    REVOKED = "revoked"
    # Somebody presented a refresh token that had been exchanged already: it was stolen, or the exchanged one was.
    TOKEN_REUSED = "token_reused"
    # Its user has begun too many others since.
    TOO_MANY = "too_many"


class Refusal(StrEnum):
    """Why somebody was not let in."""

    WRONG_PASSWORD = "wrong_password"
    UNKNOWN_ADDRESS = "unknown_address"
    DISABLED = "disabled"
    # Whatever the password was: the next guess has to wait.
    THROTTLED = "throttled"


def registered(connection: Transaction, user: User, actor: str | None) -> None:
    """There is a new user, made by `actor`; None: by themselves."""
    name = acts.user(user.id)
    after: dict[str, acts.Value] = {"roles": user.roles, "status": user.status}
    connection.audit("user.registered", name, user.created_at, actor=name if actor is None else actor, after=after)


def changed(connection: Transaction, before: User, user: User, now: datetime, kept: str = "") -> None:
    """A user is another than before; of their sessions one (`kept`) may live on where all others end."""
    name = acts.user(user.id)
    if user.roles != before.roles:
        connection.audit("user.roles_changed", name, now, before={"roles": before.roles}, after={"roles": user.roles})
    if user.status is not before.status:
        connection.audit(
            "user.status_changed", name, now, before={"status": before.status}, after={"status": user.status}
        )
    if user.password_hash != before.password_hash:
        connection.audit("user.password_changed", name, now)
    if user.credential_version != before.credential_version:
        connection.audit("user.sessions_ended", name, now, after={"kept_session_id": kept} if kept else {})


def logged_in(connection: Transaction, user: User, session_id: str, now: datetime) -> None:
    """A user has proved who they are."""
    name = acts.user(user.id)
    connection.audit("user.logged_in", name, now, actor=name, after={"session_id": session_id})


def session_ended(connection: Transaction, user_id: str, session_id: str, why: Ended, now: datetime) -> None:
    """One session of a user has ended."""
    connection.audit(
        "user.session_ended",
        acts.user(user_id),
        now,
        # Whoever has the refresh token or logs in anew is the user; of whoever presents a spent one nobody knows.
        actor="" if why is Ended.TOKEN_REUSED else acts.user(user_id),
        before={"session_id": session_id},
        after={"reason": why},
    )


def refused(action: str, user: User | None, account: str, why: Refusal, now: datetime) -> None:
    """Somebody was not let in. In the log only, which no flood of these can fill a database with.

    Args:
        action: what was tried.
        user: to whose account, where that is known.
        account: names the account that was meant, known or not; empty when no address was given.
        why: what was wrong.
        now: when, UTC.
    """
    subject = "" if user is None else acts.user(user.id)
    after = {"reason": why, "account": account}
    lines.tell(acts.act(action, subject, now, actor=acts.caller("user"), after=after))
