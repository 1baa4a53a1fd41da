"""The schemas of the services' databases: which migrations each lacks, and running them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from mesh import databases, migrations
from mesh.databases import in_database
from mesh.migrations import Migration, MigrationError, Say
from mesh.topology import SERVICES, Service

# The migrations of each database.
Schemas = Mapping[str, Sequence[Migration]]


class SchemaError(Exception):
    """The migrations are not found, or the server is not reached; the message says all that is wrong."""


def of_services(root: Path, names: Sequence[str]) -> Schemas:
    """What the databases of some services (of all, when none is named) are to have.

    Raises:
        MigrationError: a file is no migration.
        SchemaError: there is no such service, or its migrations are not below `root`.
    """
    known = {service.name: service.database for service in SERVICES if service.database is not None}
    faults = [
        f"{name} is no service with a database; there are: {', '.join(known)}" for name in names if name not in known
    ]
    chosen = {}
    for service in SERVICES:
        if service.database is None or (names and service.name not in names):
            continue
        directory = root / service.folder / service.database.schema / "migrations"
        if directory.is_dir():
            chosen[service.database.name] = migrations.read(directory)
        else:
            faults.append(f"{directory} is not there")
    if faults:
        raise SchemaError("\n".join(faults))
    return chosen


def with_password(url: str, password: str) -> str:
    """The URL of the same server with a password that is in no variable."""
    parts = urlsplit(url)
    return urlunsplit(
        parts._replace(netloc=f"{parts.username or ''}:{quote(password)}@{parts.netloc.rpartition('@')[2]}")
    )


async def make_databases(url: str, password_of: Callable[[Service], str]) -> None:
    """The services' roles and databases that are missing, each with what its role may do; again is harmless.

    Args:
        url: of any database of the server, as its superuser.
        password_of: the password of a service's role, which a role that is there keeps.

    Raises:
        SchemaError: the server cannot be reached.
    """
    try:
        await databases.close_to_others(url)
        for service in SERVICES:
            if service.database is not None:
                role = databases.Role(service.database.role, password_of(service))
                await databases.prepare(url, service.database.name, role)
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise SchemaError(str(error)) from error


async def pending(url: str, schemas: Schemas) -> dict[str, list[Migration]]:
    """What `migrate` would run, by database; `url` is any database's of the server.

    Raises:
        SchemaError: a database cannot be reached.
    """
    found = {}
    for database, own in schemas.items():
        try:
            found[database] = await migrations.pending(in_database(url, database), own)
        except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise SchemaError(f"{database}: {error}") from error
    return found


async def migrate(url: str, schemas: Schemas, say: Say) -> dict[str, list[Migration]]:
    """Run what is pending in all databases at the same time; what has been run, by database.

    Raises:
        MigrationError: migrations failed, or databases cannot be reached; the message has a line for each.
    """
    outcomes = await asyncio.gather(
        *(_one(in_database(url, database), database, own, say) for database, own in schemas.items()),
        return_exceptions=True,
    )
    if failures := [outcome for outcome in outcomes if isinstance(outcome, BaseException)]:
        raise MigrationError("\n".join(map(str, failures)))
    done = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    return dict(zip(schemas, done, strict=True))


async def _one(url: str, database: str, own: Sequence[Migration], say: Say) -> list[Migration]:
    try:
        return await migrations.apply(url, own, say)
    except (MigrationError, OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MigrationError(f"{database}: {error}") from error
