"""The services' databases on a PostgreSQL server: each one's own, with a role that reads and writes rows and no more."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from mesh import migrations

# What a server of ours is started with, beside where it listens.
SERVER_SETTINGS = {
    "max_connections": "100",
    "shared_buffers": "128MB",
    "log_timezone": "UTC",
    "idle_in_transaction_session_timeout": "30s",
}
_MAKE_LARGE_OBJECTS = "lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea)"


@dataclass(frozen=True, slots=True)
class Role:
    """The role of a service, and its password."""

    name: str
    password: str


def in_database(url: str, database: str) -> str:
    """The URL of another database of the same server, with the same user."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


async def close_to_others(url: str) -> None:
    """A role connects to its own database and to no other, the server's own included (template0 lets nobody in)."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")
    finally:
        await connection.close()


async def prepare(url: str, database: str, role: Role) -> None:
    """The role, the database and what the role may do in it; again is harmless.

    Args:
        url: of any database of the server, as its superuser.
        database: the name of the service's.
        role: the service's.
    """
    connection = await asyncpg.connect(url)
    try:
        await _ensure(connection, database, role)
    finally:
        await connection.close()
    await _grant(in_database(url, database), role.name)


async def _ensure(connection: asyncpg.Connection, database: str, role: Role) -> None:
    # Names and generated passwords (base64url) hold nothing that would need quoting.
    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role.name):
        await connection.execute(f"CREATE ROLE {role.name} LOGIN NOINHERIT PASSWORD '{role.password}'")
    if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database):
        await connection.execute(f"CREATE DATABASE {database}")
    async with connection.transaction():
        await connection.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC, {role.name}")
        await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {role.name}")


async def _grant(url: str, role: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            # Rows yes, schema no: what the migrations will create is the role's to use, not to change. Large objects
            # are tables that anybody may create.
            await connection.execute(f"REVOKE EXECUTE ON FUNCTION {_MAKE_LARGE_OBJECTS} FROM PUBLIC")
            await connection.execute(f"REVOKE ALL ON SCHEMA public FROM PUBLIC, {role}")
            await connection.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
            # The record of migrations is a table as well, and no service's business.
            await migrations.make_record(connection)
            await connection.execute(f"REVOKE ALL ON TABLE schema_migrations FROM {role}")
            await connection.execute(
                f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}"
            )
    finally:
        await connection.close()
