"""PostgreSQL: one bounded pool, explicit transactions, the request's deadline on every statement."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from google.protobuf.message import Message

from chassis import context, password_files
from chassis.audit import acts, lines, trail
from chassis.audit.acts import NOTHING, Act, Values
from chassis.config import DatabaseSettings
from chassis.errors import ServiceError
from chassis.events import outbox
from chassis.events.event import Event
from chassis.ids import uuid7
from chassis.metrics.families import Reading
from chassis.observe import Work, observe
from chassis.tracing import conventions

# What transactions together may take of a pool. They wait for each other's locks with a connection in their hands; the
# rest is for reads, which wait for nobody.
TRANSACTIONS_SHARE = 0.75
# Used where no request sets a deadline (background work).
DEFAULT_STATEMENT_SECONDS = 10.0
# How long the connections of an old password may go on with what they do: longer than any request may take.
_RENEWAL_SECONDS = 15.0
# What tools/sqlc_plugin.py writes before each statement.
_NAME = re.compile(r"-- name: (\w+)\n")
_NAME_LENGTH = 60
# More users than connections: the others wait.
_CONNECTIONS = Reading("backend_database_connections", "Connections of the pool", "state")
_MOST_CONNECTIONS = Reading("backend_database_connections_max", "Connections that the pool may have")
_USERS = Reading("backend_database_users", "Who has a connection of the pool or waits for one")


class Connection:
    """One connection, as generated query functions use it; every statement gets the time that is left."""

    __slots__ = ("_connection", "_database")

    def __init__(self, connection: PoolConnectionProxy[asyncpg.Record], database: str) -> None:
        self._connection = connection
        self._database = database

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """All rows of a query."""
        with observe(_statement(sql, self._database)):
            rows: list[asyncpg.Record] = await self._connection.fetch(sql, *args, timeout=_seconds())
        return rows

    async def fetchrow(self, sql: str, *args: object) -> asyncpg.Record | None:
        """The first row of a query, or None."""
        with observe(_statement(sql, self._database)):
            row: asyncpg.Record | None = await self._connection.fetchrow(sql, *args, timeout=_seconds())
        return row

    async def execute(self, sql: str, *args: object) -> int:
        """Run a statement; the number of rows it touched."""
        with observe(_statement(sql, self._database)):
            tag: str = await self._connection.execute(sql, *args, timeout=_seconds())
        count = tag.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    async def executemany(self, sql: str, args: Iterable[Sequence[object]]) -> None:
        """Run a statement once for each tuple of arguments, in one round trip."""
        with observe(_statement(sql, self._database)):
            await self._connection.executemany(sql, args, timeout=_seconds())


class Transaction(Connection):
    """A connection within a transaction, with the events that are told and the acts that are kept when it commits, and only then."""

    __slots__ = ("_service", "acts", "events")

    def __init__(self, connection: PoolConnectionProxy[asyncpg.Record], database: str, service: str) -> None:
        super().__init__(connection, database)
        self._service = service
        self.events: list[Event] = []
        self.acts: list[Act] = []

    def record(self, subject_id: UUID, message: Message, time: datetime) -> None:
        """Tell an event if the transaction commits. Those of one subject are told in the order in which they are recorded.

        Args:
            subject_id: to what it happened, which the transaction has locked or made.
            message: what happened.
            time: when, UTC.

        Raises:
            ValueError: the message's contract does not say that it is an event.
        """
        self.events.append(outbox.event(self._service, uuid7(), subject_id, message, time))

    def audit(
        self,
        action: str,
        subject: str,
        time: datetime,
        *,
        actor: str | None = None,
        before: Values = NOTHING,
        after: Values = NOTHING,
    ) -> None:
        """Keep what is done in the audit trail if the transaction commits; by which request, and from where, says the context.

        Args:
            action: what is done, "product.price_changed".
            subject: to what, "product/ID".
            time: when, UTC.
            actor: who does it; None: the caller, or the service where nobody calls.
            before: what is so, of what changes. Nothing that is secret.
            after: what will be so.

        Raises:
            ValueError: a name or a value is none that the trail takes.
        """
        by = acts.caller(self._service) if actor is None else actor
        self.acts.append(acts.act(action, subject, time, actor=by, before=before, after=after))


class Database:
    """A pool of connections to one database.

    Args:
        url: a libpq URL.
        min_size, max_size: connections kept and allowed; callers queue for one until their deadline.
            Transactions have TRANSACTIONS_SHARE of them, one at least.
        service: application_name of the sessions, for pg_stat_activity.
        password_file: of the password, when the URL has none.
    """

    def __init__(
        self, url: str, *, min_size: int, max_size: int, service: str, password_file: Path | None = None
    ) -> None:
        # The pool's own arguments, handed on.
        async def connect(  # type: ignore[explicit-any]
            *args: Any, **options: Any
        ) -> asyncpg.Connection[asyncpg.Record]:
            refusal: asyncpg.InvalidPasswordError | None = None
            for password in [None] if password_file is None else password_files.passwords(password_file):
                try:
                    return await asyncpg.connect(*args, **options, password=password)
                except asyncpg.InvalidPasswordError as error:
                    refusal = error
            raise refusal or OSError(f"{password_file} is empty")

        session = {"application_name": service}
        self._connect: Callable[[], Awaitable[asyncpg.Connection[asyncpg.Record]]] = lambda: connect(
            url, server_settings=session, command_timeout=DEFAULT_STATEMENT_SECONDS
        )
        self._new_pool: Callable[[], asyncpg.Pool[asyncpg.Record]] = lambda: asyncpg.create_pool(
            url,
            min_size=min_size,
            max_size=max_size,
            command_timeout=DEFAULT_STATEMENT_SECONDS,
            # A session never keeps state between transactions, so the server-side RESET, a round trip on every
            # release, would undo nothing. An open transaction is rolled back by the block that opened it.
            reset=_no_reset,
            server_settings=session,
            connect=connect,
        )
        self._pool = self._new_pool()
        self._users = _Users()
        self._service = service
        # Set when a transaction has committed that recorded events.
        self.told = asyncio.Event()
        self._name = name = urlsplit(url).path.strip("/")
        self._connection = Work("database", "connection", _translate, conventions.pool("connection", name))
        self._transaction = Work("database", "transaction", _translate, conventions.pool("transaction", name))
        self._listening = Work("database", "listen", _translate)
        self._transactions = asyncio.Semaphore(max(1, int(max_size * TRANSACTIONS_SHARE)))
        _CONNECTIONS.read(lambda: self._pool.get_size() - self._idle(), "used")
        _CONNECTIONS.read(self._idle, "idle")
        _MOST_CONNECTIONS.read(lambda: max_size)
        _USERS.read(lambda: self._users.count)

    @classmethod
    def configured(cls, settings: DatabaseSettings, *, service: str) -> Database:
        """The one that a service's settings describe."""
        return cls(
            settings.database_url.get_secret_value(),
            min_size=settings.database_pool_min,
            max_size=settings.database_pool_max,
            service=service,
            password_file=settings.database_password_file,
        )

    def _idle(self) -> int:
        # Of the pool that there is now: `renew` replaces it.
        return self._pool.get_idle_size()

    async def open(self) -> None:
        """Open the pool; may be tried again when it failed.

        Raises:
            OSError, asyncpg.PostgresError: the database cannot be reached or refuses us.
        """
        try:
            await self._pool
        except BaseException:
            # A pool whose first connections failed is closed for good, and says nothing when it is awaited again.
            self._pool = self._new_pool()
            raise

    async def renew(self) -> None:
        """Replace every connection, for instance when the password has changed; each ends after what it is used for.

        Raises:
            OSError, asyncpg.PostgresError: no new ones can be had; the old ones stay.
        """
        fresh = self._new_pool()
        await fresh
        (old, users), self._pool, self._users = (self._pool, self._users), fresh, _Users()
        # Nobody comes to the old one any more; closed now, it would refuse those who wait for one of its connections.
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_RENEWAL_SECONDS):
                    while users.count:
                        await asyncio.sleep(0.05)
                    await old.close()
        finally:
            old.terminate()

    async def close(self) -> None:
        """Wait for the connections in use, then close all."""
        await self._pool.close()

    async def ping(self) -> None:
        """Raise unless the database answers within a second."""
        with self._users:
            async with self._pool.acquire(timeout=1.0) as connection:
                await connection.fetchval("SELECT 1", timeout=1.0)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for reads, each statement its own transaction.

        Raises:
            ServiceError: DEADLINE_EXCEEDED, or UNAVAILABLE when the database cannot be reached or has no room.
        """
        with observe(self._connection), self._users:
            async with self._pool.acquire(timeout=_seconds()) as raw:
                yield Connection(raw, self._name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A READ COMMITTED transaction: committed at the end of the block, rolled back when it raises.

        Raises:
            ServiceError: DEADLINE_EXCEEDED, or UNAVAILABLE when the database cannot be reached or has no room.
        """
        with observe(self._transaction), self._users:
            async with self._turn(), self._pool.acquire(timeout=_seconds()) as raw:
                transaction = Transaction(raw, self._name, self._service)
                async with raw.transaction():
                    yield transaction
                    if transaction.events:
                        await outbox.write(transaction, transaction.events)
                    if transaction.acts:
                        await trail.write(transaction, transaction.acts)
                if transaction.events:
                    self.told.set()
                for act in transaction.acts:
                    lines.tell(act)

    @asynccontextmanager
    async def listening(self, channel: str, heard: Callable[[], None]) -> AsyncIterator[Callable[[], bool]]:
        """Call `heard` at each NOTIFY of a channel, on a connection of its own.

        Behind a pool that hands out a connection for each transaction (pgbouncer's mode "transaction") nothing is heard.

        Returns:
            Asks whether the connection is still there, and was made since `renew`; `heard` is called as well when it has gone.

        Raises:
            ServiceError: UNAVAILABLE; the database cannot be reached, or has no room.
        """

        def on_notice(*_: object) -> None:
            heard()

        pool = self._pool
        with observe(self._listening):
            connection = await self._connect()
        try:
            with observe(self._listening):
                await connection.add_listener(channel, on_notice)
            connection.add_termination_listener(on_notice)
            yield lambda: not connection.is_closed() and self._pool is pool
        finally:
            connection.terminate()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One of the connections that transactions may take; waited for in order of arrival, until the deadline."""
        async with asyncio.timeout(_seconds()):
            await self._transactions.acquire()
        try:
            yield
        finally:
            self._transactions.release()


class _Users:
    """How many have one of a pool's connections or wait for one."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1


async def _no_reset(_connection: object) -> None:
    return


def _seconds() -> float:
    current = context.current()
    remaining = current.remaining() if current else None
    if remaining is None:
        return DEFAULT_STATEMENT_SECONDS
    if remaining <= 0:
        raise ServiceError("DEADLINE_EXCEEDED")
    return remaining


# The driver's ways of saying that the database cannot be reached, is going away, or has no room: nothing that the caller
# did, and nothing that a later try could not do.
_UNREACHABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    # Too many connections, no memory, a full disk; what else the disk refuses; a server that only reads (a failover).
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresIOError,
    asyncpg.ReadOnlySQLTransactionError,
    # A database that lets nobody in, or is not there, while a backup takes its place.
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.InvalidCatalogNameError,
    # A connection whose server died in the middle of an answer, used again before the driver has seen it close.
    asyncpg.InternalClientError,
    OSError,
)


def _translate(error: Exception, _name: str) -> ServiceError | None:
    """The driver's connection failures; everything else stays what it is."""
    if isinstance(error, TimeoutError):
        return ServiceError("DEADLINE_EXCEEDED")
    return ServiceError("UNAVAILABLE") if isinstance(error, _UNREACHABLE) else None


@lru_cache(maxsize=512)
def _statement(sql: str, database: str) -> Work:
    """A statement's name is what its query file calls it, or else how its text begins.

    Its errors are its connection's or its transaction's.
    """
    if (named := _NAME.match(sql)) is not None:
        name, text = named[1], sql[named.end() :]
    else:
        name, text = " ".join(sql.split())[:_NAME_LENGTH], sql
    return Work("database", name, span=conventions.sql(name, text.strip(), database))
