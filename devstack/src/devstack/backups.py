"""Backups of the databases, and what it takes to go back to one: `backend backup`, `backend restore`.

A backup is a directory: one archive of pg_dump a database, and a manifest. Each archive is of one moment; orders are
dumped before users, so that whoever has an order in it is in it as well. Secrets, keys and sessions are not in it.

A restore is made beside what serves, in databases of other names; only then are they exchanged, both in one
transaction. Going back breaks what everything else relies on, that versions only grow: what Valkey has is newer than
the database from then on. So no process that has read the old databases lives on, and the copies, the floors, the
answers to idempotency keys and the sessions are gone before the first one reads the new (ADR 0021).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
from mesh import migrations
from mesh.topology import CACHE, SERVICES, STATE, service_of
from redis.asyncio import Redis

from devstack import errands, postgres, services, state
from devstack.layout import Layout
from devstack.postgres import ServiceDatabase
from devstack.processes import base_environment
from devstack.secrets import Secrets
from devstack.state import ProcessState, StackState

_MANIFEST = "manifest.json"
_WITH_DATABASES = tuple(service.name for service in SERVICES if service.database is not None)
# What the state server has that is about rows of the databases.
_OF_ROWS = tuple(
    pattern
    for service in SERVICES
    if service.database is not None and service.valkey is not None and service.valkey.server == STATE
    for pattern in service.valkey.keys
    if pattern not in service.valkey.outlast_restores
)
# A process drains for up to 18 s, and starts again.
_RESTART_SECONDS = 60.0


class BackupError(Exception):
    """A backup or a restore cannot be made; the message says why. Nothing has changed."""


@dataclass(frozen=True, slots=True)
class Archive:
    """One database in a backup."""

    file: str
    sha256: str
    migrations: tuple[str, ...]


async def back_up(layout: Layout, secrets: Secrets, target: Path) -> dict[str, Archive]:
    """Write a backup; `target` appears when it is whole.

    Raises:
        BackupError: `target` exists, or pg_dump failed.
    """
    building = _begin(target)
    archives = {}
    for service in _orders_first(secrets):
        connection = await asyncpg.connect(postgres.superuser_url(layout, secrets, service.database))
        versions = tuple(sorted(await migrations.recorded(connection)))
        await connection.close()
        file = building / f"{service.database}.dump"
        await _client(
            layout, secrets, "pg_dump", "--format", "custom", "--lock-wait-timeout", "10s", "--file", str(file),
            "--dbname", service.database,
        )  # fmt: skip
        archives[service.database] = Archive(file.name, _sha256(file), versions)
    manifest = {"made": datetime.now(UTC).isoformat(timespec="seconds"), "databases": _plain(archives)}
    (building / _MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    building.rename(target)
    return archives


def _begin(target: Path) -> Path:
    if target.exists():
        raise BackupError(f"{target} exists already")
    building = target.with_name(f"{target.name}.partial")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(mode=0o700, parents=True)
    return building


def read(source: Path, secrets: Secrets) -> dict[str, Archive]:
    """The archives of a backup, by database, checked.

    Raises:
        BackupError: it is none, is damaged, or was made by a later version of the platform.
    """
    try:
        manifest = json.loads((source / _MANIFEST).read_text(encoding="utf-8"))
        archives = {
            name: Archive(raw["file"], raw["sha256"], tuple(raw["migrations"]))
            for name, raw in manifest["databases"].items()
        }
    except FileNotFoundError as error:
        raise BackupError(f"{source} is no backup: there is no {_MANIFEST} in it") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{source} is no backup: {error}") from error
    for service in postgres.databases(secrets):
        archive = archives.get(service.database)
        if archive is None or not (source / archive.file).is_file():
            raise BackupError(f"{source} lacks {service.database}")
        if _sha256(source / archive.file) != archive.sha256:
            raise BackupError(f"{source / archive.file} is damaged: its checksum is not the manifest's")
        known = {migration.version for migration in migrations.read(service.migrations)}
        if later := sorted(set(archive.migrations) - known):
            raise BackupError(f"{source} was made by a later version: it has migrations {', '.join(later)}")
    return archives


async def restore(layout: Layout, secrets: Secrets, source: Path, running: StackState, say: migrations.Say) -> None:
    """Go back to a backup. The platform answers 503 for the seconds of the exchange.

    Raises:
        BackupError: the backup cannot be used; nothing has changed.
        migrations.MigrationError: a migration that the backup lacks failed; nothing has changed.
        TimeoutError: a service did not start again.
    """
    archives = read(source, secrets)
    own = _orders_first(secrets)
    for service in own:
        await _load(layout, secrets, service, source / archives[service.database].file, say)
        say(f"{service.database}: loaded beside the one that serves")
    server = await asyncpg.connect(postgres.superuser_url(layout, secrets, "postgres"))
    try:
        async with _closed(server, own):
            say(f"the databases are closed; {' and '.join(_WITH_DATABASES)} start again")
            await _restart(running)
            await _forget(layout, secrets)
            async with server.transaction():
                for service in own:
                    await server.execute(f"ALTER DATABASE {service.database} RENAME TO {service.database}_replaced")
                    await server.execute(f"ALTER DATABASE {service.database}_restored RENAME TO {service.database}")
        for service in own:
            await server.execute(f"DROP DATABASE {service.database}_replaced WITH (FORCE)")
    finally:
        await server.close()
    await _until_ready(layout, running)


def _orders_first(secrets: Secrets) -> Sequence[ServiceDatabase]:
    return sorted(postgres.databases(secrets), key=lambda service: service.database)


async def _client(layout: Layout, secrets: Secrets, program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's own programs as the superuser; the password is in no process list."""
    where = ("--host", str(postgres.socket_directory(layout)), "--username", postgres.SUPERUSER, "--no-password")
    status, output = await errands.run(
        [str(postgres.BINARIES / program), *where, *arguments],
        environment=base_environment() | {"PGPASSWORD": secrets["postgres_password"]},
    )
    if status != 0:
        raise BackupError(f"{program}: {output.strip()}")


async def _load(layout: Layout, secrets: Secrets, service: ServiceDatabase, file: Path, say: migrations.Say) -> None:
    beside = replace(service, database=f"{service.database}_restored")
    server = await asyncpg.connect(postgres.superuser_url(layout, secrets, "postgres"))
    try:
        # Of a restore that was cut off.
        await server.execute(f"DROP DATABASE IF EXISTS {beside.database} WITH (FORCE)")
        await server.execute(f"CREATE DATABASE {beside.database}")
    finally:
        await server.close()
    await _client(
        layout, secrets, "pg_restore", "--exit-on-error", "--single-transaction", "--dbname", beside.database, str(file)
    )
    await postgres.prepare_one(layout, secrets, beside)
    await postgres.migrate_one(layout, secrets, beside, say)
    connection = await asyncpg.connect(postgres.superuser_url(layout, secrets, beside.database))
    if service.restored.exists():
        await connection.execute(service.restored.read_text(encoding="utf-8"))
    await connection.execute("ANALYZE")
    await connection.close()


@asynccontextmanager
async def _closed(server: asyncpg.Connection, own: Sequence[ServiceDatabase]) -> AsyncIterator[None]:
    """Nobody reads or writes the databases, for the duration of the block; at its end those of their names are open."""
    try:
        for service in own:
            await server.execute(f"ALTER DATABASE {service.database} WITH ALLOW_CONNECTIONS false")
            await server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", service.database
            )
        yield
    finally:
        for service in own:
            await server.execute(f"ALTER DATABASE {service.database} WITH ALLOW_CONNECTIONS true")


async def _restart(running: StackState) -> None:
    """End every process that has read the databases, with what it may still want to offer to a cache."""
    old = [process for process in _readers(running) if state.alive(process.pid, process.created)]
    for process in old:
        os.kill(process.pid or 0, process.stop_signal)
    async with asyncio.timeout(_RESTART_SECONDS):
        while any(state.alive(process.pid, process.created) for process in old):
            await asyncio.sleep(0.05)


def _readers(running: StackState) -> list[ProcessState]:
    return [process for process in running.processes if service_of(process.name) in _WITH_DATABASES]


async def _forget(layout: Layout, secrets: Secrets) -> None:
    """What Valkey knows of rows that may not exist any more, or again: copies, floors, answers to keys, sessions."""
    cache = Redis.from_url(services.valkey_url(layout, secrets, server=CACHE))
    kept = Redis.from_url(services.valkey_url(layout, secrets, server=STATE))
    try:
        await cache.flushall()
        for pattern in _OF_ROWS:
            names = [name async for name in kept.scan_iter(pattern, count=1000)]
            for start in range(0, len(names), 1000):
                await kept.unlink(*names[start : start + 1000])
    finally:
        await cache.aclose()
        await kept.aclose()


async def _until_ready(layout: Layout, before: StackState) -> None:
    ended = {process.pid for process in _readers(before)}
    async with asyncio.timeout(_RESTART_SECONDS):
        while True:
            now = state.read(layout)
            if now is not None and all(p.state == "ready" and p.pid not in ended for p in now.processes):
                return
            await asyncio.sleep(0.1)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _plain(archives: dict[str, Archive]) -> dict[str, object]:
    return {name: asdict(archive) for name, archive in archives.items()}
