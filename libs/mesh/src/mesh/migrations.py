"""Runs the SQL files of services/*/db/migrations on live data: nobody waits long behind what they lock.

A file is dbmate's format, which sqlc reads as well: its name begins with the version, `-- migrate:up` begins what is
run. It runs in one transaction, recorded in the same. What a statement of it locks, it waits for a second at most, for
everybody who comes later queues behind it; then all of it is rolled back and tried again later.

`-- migrate:up transaction:false` is for the one statement that PostgreSQL refuses inside a transaction because it works
beside the others: CREATE INDEX CONCURRENTLY IF NOT EXISTS, DROP INDEX CONCURRENTLY IF EXISTS. It may wait, for nobody
waits behind it. What a build that was cut off leaves, an invalid index, is dropped before it is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg

# Only one runner at a time works in a database; any number that nobody else uses.
_RUNNER_LOCK = 7_204_119
_UP, _DOWN = "-- migrate:up", "-- migrate:down"
# What may run outside a transaction, by its first words; a UNIQUE among them says nothing else.
_CONCURRENT = ("CREATE INDEX CONCURRENTLY IF NOT EXISTS ", "DROP INDEX CONCURRENTLY IF EXISTS ")
_BLOCKERS = """
SELECT pid, usename, application_name, state, round(extract(epoch FROM clock_timestamp() - xact_start)) AS seconds
FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids($1)) ORDER BY xact_start
"""
_INVALID = """
SELECT indexrelid::regclass::text AS name FROM pg_index
WHERE NOT indisvalid AND indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
"""

# Told what happens, a line at a time.
Say = Callable[[str], None]


class MigrationError(Exception):
    """A migration cannot be run or failed; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a migration waits, in seconds.

    Together the tries outlast a transaction that is left open, which the server ends after 30 s
    (`idle_in_transaction_session_timeout`).
    """

    # For a lock, while everybody who wants the same table queues behind.
    lock: float = 1.0
    # For one statement, which may hold what it has locked for so long. A migration that needs more says so itself
    # (SET LOCAL statement_timeout), where its review sees it.
    statement: float = 30.0
    # Between one try and the next.
    pauses: tuple[float, ...] = (1, 2, 4, 8, 8, 8, 8)
    # For what runs outside a transaction: until all transactions older than it have ended, and it hinders none of them.
    concurrent_lock: float = 600.0


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    version: str
    name: str
    up: str
    in_transaction: bool


def read(directory: Path) -> list[Migration]:
    """The migrations of a directory, in their order.

    Raises:
        MigrationError: a file is none, or runs outside a transaction what has to be in one.
    """
    return [_parse(path) for path in sorted(directory.glob("*.sql"))]


def _parse(path: Path) -> Migration:
    version = path.name.partition("_")[0]
    _, begins, rest = ("\n" + path.read_text(encoding="utf-8")).partition("\n" + _UP)
    if not version.isdecimal() or not begins:
        raise MigrationError(f"{path.name}: not VERSION_NAME.sql with a line `{_UP}`")
    options, _, rest = rest.partition("\n")
    if options.split() not in ([], ["transaction:true"], ["transaction:false"]):
        raise MigrationError(f"{path.name}: unknown option in `{_UP}{options}`")
    up = rest.partition("\n" + _DOWN)[0].strip()
    in_transaction = "transaction:false" not in options
    if not in_transaction and not _blocks_nobody(up):
        raise MigrationError(
            f"{path.name}: outside a transaction runs one statement that may be repeated and blocks nobody: "
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS or DROP INDEX CONCURRENTLY IF EXISTS"
        )
    return Migration(version, path.name, up, in_transaction)


def _blocks_nobody(up: str) -> bool:
    lines = (line.partition("--")[0] for line in up.splitlines())
    statement = " ".join(" ".join(lines).split()).removesuffix(";")
    words = statement.upper().replace("CREATE UNIQUE INDEX", "CREATE INDEX", 1)
    return words.startswith(_CONCURRENT) and ";" not in words


async def make_record(connection: asyncpg.Connection) -> None:
    """Where the versions that a database has are written down, as dbmate does."""
    await connection.execute("CREATE TABLE IF NOT EXISTS public.schema_migrations (version varchar(128) PRIMARY KEY)")


async def recorded(connection: asyncpg.Connection) -> set[str]:
    """The versions that a database has; empty when nothing has ever run there."""
    if await connection.fetchval("SELECT to_regclass('public.schema_migrations')") is None:
        return set()
    return {row["version"] for row in await connection.fetch("SELECT version FROM public.schema_migrations")}


async def pending(url: str, migrations: Sequence[Migration]) -> list[Migration]:
    """Those that a database does not have yet."""
    connection = await asyncpg.connect(url)
    try:
        have = await recorded(connection)
    finally:
        await connection.close()
    return [migration for migration in migrations if migration.version not in have]


async def apply(
    url: str, migrations: Sequence[Migration], say: Say, patience: Patience = Patience()
) -> list[Migration]:
    """Run those that are pending, in their order; which those were. Another runner is waited for.

    Args:
        url: of the database, as the owner of its schema.
        migrations: all of its migrations.
        say: told what has to be waited for.
        patience: how long to wait.

    Raises:
        MigrationError: one failed; those before it stay, and nothing of it is done.
    """
    connection = await asyncpg.connect(url)
    try:
        # Asked for again and again: a session that waits inside PostgreSQL would be a transaction that CREATE INDEX
        # CONCURRENTLY of the other runner waits for.
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _RUNNER_LOCK):
            await asyncio.sleep(0.2)
        await make_record(connection)
        have = await recorded(connection)
        due = [migration for migration in migrations if migration.version not in have]
        for migration in due:
            await _patiently(connection, url, migration, say, patience)
        return due
    finally:
        await connection.close()


async def _patiently(
    connection: asyncpg.Connection, url: str, migration: Migration, say: Say, patience: Patience
) -> None:
    for pause in (*patience.pauses, None):
        blockers: list[str] = []
        try:
            await _watched(connection, url, _run(connection, migration, patience), blockers)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            what = f"{migration.name} waits for {'; '.join(blockers) or 'a lock'}"
            if pause is None:
                raise MigrationError(
                    f"{what} and has given up after {len(patience.pauses) + 1} tries; nothing of it is done, and nobody "
                    "waits for it any more. Run it again when that transaction has ended, or end it: "
                    "SELECT pg_terminate_backend(PID)"
                ) from error
            say(f"{what}; tries again in {pause:g} s")
            await asyncio.sleep(pause)
        except asyncpg.PostgresError as error:
            raise MigrationError(f"{migration.name}: {type(error).__name__}: {error}") from error
        else:
            return


async def _run(connection: asyncpg.Connection, migration: Migration, patience: Patience) -> None:
    record = "INSERT INTO public.schema_migrations (version) VALUES ($1)"
    if migration.in_transaction:
        async with connection.transaction():
            await connection.execute(
                f"SET LOCAL lock_timeout = {_milliseconds(patience.lock)};"
                f"SET LOCAL statement_timeout = {_milliseconds(patience.statement)}"
            )
            await connection.execute(migration.up)
            await connection.execute(record, migration.version)
        return
    await connection.execute(f"SET lock_timeout = {_milliseconds(patience.concurrent_lock)}")
    try:
        for row in await connection.fetch(_INVALID):
            await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {row['name']}")
        await connection.execute(migration.up)
    finally:
        await connection.execute("RESET lock_timeout")
    await connection.execute(record, migration.version)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


async def _watched(connection: asyncpg.Connection, url: str, work: Awaitable[object], blockers: list[str]) -> None:
    """Do `work`, and note whom it waited for last."""
    watching = asyncio.create_task(_note_blockers(url, connection.get_server_pid(), blockers))
    try:
        await work
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError, OSError, asyncpg.PostgresError):
            await watching


async def _note_blockers(url: str, pid: int, blockers: list[str]) -> None:
    # Most migrations wait for nobody and are done by then.
    await asyncio.sleep(0.1)
    connection = await asyncpg.connect(url)
    try:
        while True:
            if found := await connection.fetch(_BLOCKERS, pid):
                blockers[:] = [
                    f"process {row['pid']} ({row['usename']}, {row['application_name'] or 'no application name'}, "
                    f"{row['state']}, its transaction {row['seconds']} s old)"
                    for row in found
                ]
            await asyncio.sleep(0.1)
    finally:
        await connection.close()
