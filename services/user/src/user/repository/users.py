"""Users."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from chassis.text import search_key

from user.domain.email_address import canonical
from user.domain.errors import EmailTakenError, InvalidFieldError, NotFoundError
from user.domain.user import Role, User, UserStatus
from user.repository import queries
from user.repository.queries import Connection


async def insert(connection: Connection, user: User) -> User:
    """A new user.

    Raises:
        EmailTakenError: the address is registered, in this or another spelling.
        InvalidFieldError: it is no address.
    """
    row = await queries.insert_user(
        connection,
        id=user.id,
        email=user.email,
        display_name=user.display_name,
        password_hash=user.password_hash,
        roles=[role.value for role in user.roles],
        credential_version=user.credential_version,
        email_key=canonical(user.email),
        search_text=_search_text(user),
        now=user.created_at,
    )
    if row is None:
        raise EmailTakenError
    return _user(row)


async def get(connection: Connection, user_id: UUID) -> User:
    """One user.

    Raises:
        NotFoundError: there is none.
    """
    row = await queries.get_user(connection, id=user_id)
    if row is None:
        raise NotFoundError
    return _user(row)


async def by_email(connection: Connection, email_key: str) -> User | None:
    """The user with this canonical address."""
    row = await queries.get_user_by_email(connection, email_key=email_key)
    return None if row is None else _user(row)


async def lock(connection: Connection, user_id: UUID) -> User:
    """One user, the row locked until the transaction ends.

    Raises:
        NotFoundError: there is none.
    """
    row = await queries.lock_user(connection, id=user_id)
    if row is None:
        raise NotFoundError
    return _user(row)


async def update(connection: Connection, user: User, now: datetime) -> User:
    """Store everything of a user that can change."""
    row = await queries.update_user(
        connection,
        id=user.id,
        display_name=user.display_name,
        password_hash=user.password_hash,
        status=queries.UserStatus(user.status),
        roles=[role.value for role in user.roles],
        version=user.version,
        updated_at=now,
        credential_version=user.credential_version,
        search_text=_search_text(user),
    )
    if row is None:
        raise NotFoundError
    return _user(row)


async def rehash(connection: Connection, user: User, new_hash: str) -> None:
    """Store the same password under other parameters, unless it was changed meanwhile."""
    await queries.rehash_password(connection, id=user.id, old_hash=user.password_hash, new_hash=new_hash)


async def another_administers(connection: Connection, user_id: UUID) -> bool:
    """Whether somebody else administers users. Changes of who does wait until the transaction ends."""
    await queries.serialize_administrators(connection)
    return bool(await queries.other_administrator_exists(connection, id=user_id))


async def page(connection: Connection, search: str, before: UUID | None, limit: int) -> list[User]:
    """Up to `limit` users, newest first, below the keyset `before`."""
    found = await queries.list_users(
        connection, before_id=before, pattern=_contains(search) if search else None, row_limit=limit
    )
    return [_user(row) for row in found]


async def without_forms(connection: Connection, after: UUID | None, limit: int) -> list[User]:
    """Up to `limit` users that have no canonical forms yet, in order of id, after the given one."""
    return [_user(row) for row in await queries.users_without_forms(connection, after_id=after, row_limit=limit)]


async def fill_forms(connection: Connection, user: User) -> bool:
    """Store the canonical forms of such a user; False when there is no canonical address, or another user has it."""
    await queries.set_search_text(connection, id=user.id, search_text=_search_text(user))
    try:
        return await queries.set_email_key(connection, id=user.id, email_key=canonical(user.email)) is not None
    except InvalidFieldError:
        return False


def _search_text(user: User) -> str:
    return f"{search_key(user.email)}\n{search_key(user.display_name)}"


def _contains(search: str) -> str:
    escaped = search_key(search).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _user(row: queries.User) -> User:
    return User(
        id=row.id,
        email=row.email,
        display_name=row.display_name,
        password_hash=row.password_hash,
        status=UserStatus(row.status),
        roles=tuple(Role(name) for name in row.roles),
        version=row.version,
        credential_version=row.credential_version,
        created_at=row.created_at,
    )
