"""`backend-mesh`: what follows from the table of services, for any place that the backend runs at.

Where `backend` runs everything on one machine, this writes files and brings databases up to date for whatever runs the
processes instead (Compose, Kubernetes).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from chassis.config import DEFAULT_TOKEN_AUDIENCE, DEFAULT_TOKEN_ISSUER

if TYPE_CHECKING:
    from mesh.topology import Service

# How often it is looked whether a certificate is due, at least; and at most, for lives of seconds in tests.
_RENEWAL_LOOK_SECONDS = 60.0
_LEAST_RENEWAL_SECONDS = 0.5

app = typer.Typer(
    help="Configurations, the databases' schemas and the broker's streams, for any place that the backend runs at.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def render(
    site: Annotated[Path, typer.Option(help="Where the mesh will run: a YAML file (docs/network.md, Elsewhere).")],
    out: Annotated[Path, typer.Option(help="The directory to write to; made when it is not there.")],
    process: Annotated[list[str] | None, typer.Option(help="Only of this service, or the edge; repeatable.")] = None,
    trace_key: Annotated[
        str, typer.Option(envvar="TRACE_KEY", help="Stands instead of the file's trace_key, which is a secret.")
    ] = "",
) -> None:
    """Write the configuration of every Envoy, the files by which it finds certificates, and that of the broker."""
    from mesh import checks, rendering
    from mesh.site import SiteError, read

    try:
        checks.require()
        found = read(site, trace_key=trace_key, processes=process or ())
    except (checks.TableError, SiteError) as error:
        raise _refused(error) from None
    for path in rendering.write(found, out, process or ()):
        typer.echo(path)


@app.command()
def migrate(
    url: Annotated[
        str,
        typer.Option(
            envvar="DATABASE_URL",
            help="Of the PostgreSQL server, as the owner of the databases (libpq); in a variable it is in no process list.",
        ),
    ],
    root: Annotated[Path, typer.Option(help="The repository, or wherever its `services` are.")] = Path(),
    service: Annotated[list[str] | None, typer.Option(help="Only of this service; repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be run.")] = False,
    passwords: Annotated[
        Path | None,
        typer.Option(help="Of the roles, a file each: makes roles and databases, too, as a superuser (Compose)."),
    ] = None,
) -> None:
    """Run the migrations that the services' databases do not have yet, beside those who use them."""
    from mesh import schemas
    from mesh.migrations import MigrationError

    try:
        chosen = schemas.of_services(root, service or [])
        if passwords is not None and not dry_run:
            from mesh.compose import places

            url = schemas.with_password(url, (passwords / places.SUPERUSER).read_text(encoding="utf-8"))
            asyncio.run(schemas.make_databases(url, lambda one: _password(passwords, one)))
        done = asyncio.run(schemas.pending(url, chosen) if dry_run else schemas.migrate(url, chosen, typer.echo))
    except (MigrationError, schemas.SchemaError, OSError) as error:
        raise _refused(error) from None
    for database, files in done.items():
        for migration in files:
            how = "in a transaction" if migration.in_transaction else "beside transactions"
            typer.echo(f"{database}  {migration.name}  {f'would run {how}' if dry_run else 'done'}")
    if not any(done.values()):
        typer.echo("the databases have every migration")


@app.command()
def streams(
    url: Annotated[str, typer.Option(envvar="NATS_URL", help="Of the brokers, separated by commas: tls://HOST:PORT.")],
    certificates: Annotated[
        Path, typer.Option(envvar="NATS_CERTIFICATES", help="The operators' tls.crt, tls.key and ca.crt.")
    ],
    replicas: Annotated[int, typer.Option(min=1, max=5, help="Servers of a cluster that have each stream.")] = 1,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove consumers that no row has, and what they have not acted on.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Make the broker's streams and consumers that are missing, and change those that differ from the table of services."""
    from chassis.events.publisher import BrokerUnavailable

    from mesh import streams as declared

    try:
        done = asyncio.run(declared.apply(url, certificates, replicas=replicas, remove=remove, dry_run=dry_run))
    except (BrokerUnavailable, OSError) as error:
        raise _refused(error) from None
    for line in done:
        typer.echo(f"would be: {line}" if dry_run else line)
    if not done:
        typer.echo("the broker has what is declared")


@app.command()
def prepare(
    root: Annotated[Path, typer.Option(help="Where the volumes are mounted.")] = Path("/etc/backend"),
    environment: Annotated[str, typer.Option(envvar="ENVIRONMENT")] = "development",
    version: Annotated[str, typer.Option(envvar="VERSION")] = "0.1.0",
    public_host: Annotated[str, typer.Option(envvar="PUBLIC_HOST", help="By which clients reach it.")] = "localhost",
    token_issuer: Annotated[str, typer.Option(envvar="TOKEN_ISSUER")] = DEFAULT_TOKEN_ISSUER,
    token_audience: Annotated[str, typer.Option(envvar="TOKEN_AUDIENCE")] = DEFAULT_TOKEN_AUDIENCE,
    ops_network: Annotated[
        str, typer.Option(envvar="OPS_NETWORK", help="Who may read metrics: a network (CIDR).")
    ] = "127.0.0.0/8",
    otlp_endpoint: Annotated[str, typer.Option(envvar="OTLP_ENDPOINT", help="Where spans are sent; nowhere.")] = "",
    rate_limit_scale: Annotated[float, typer.Option(envvar="RATE_LIMIT_SCALE", help="Multiplies every limit.")] = 1.0,
    allowed_origins: Annotated[str, typer.Option(envvar="ALLOWED_ORIGINS", help="Of browsers; by commas.")] = "",
    trusted_proxies: Annotated[str, typer.Option(envvar="TRUSTED_PROXIES", help="Networks; by commas.")] = "",
    connection_seconds: Annotated[int, typer.Option(envvar="CONNECTION_SECONDS")] = 300,
    https_only: Annotated[bool, typer.Option("--https-only", envvar="HTTPS_ONLY")] = False,
    trace_ratio: Annotated[float, typer.Option(envvar="TRACE_RATIO", help="Of requests, those traced.")] = 0.1,
    certificate_seconds: Annotated[int, typer.Option(envvar="CERTIFICATE_SECONDS", min=20)] = 86_400,
) -> None:
    """Make secrets and certificates that are missing and write all configurations: the first job of compose.yaml."""
    from mesh import checks
    from mesh.compose import preparation
    from mesh.policies import Policies, parse_origins

    told = preparation.Told(
        environment=environment,
        version=version,
        public_host=public_host,
        token_issuer=token_issuer,
        token_audience=token_audience,
        ops_network=ops_network,
        otlp_endpoint=otlp_endpoint,
        certificate_life=timedelta(seconds=certificate_seconds),
    )
    try:
        checks.require()
        policies = Policies(
            rate_limit_scale=rate_limit_scale,
            cors_origins=parse_origins(_listed(allowed_origins)),
            trusted_proxies=tuple(_listed(trusted_proxies)),
            https_only=https_only,
            connection_seconds=connection_seconds,
            trace_ratio=trace_ratio,
        )
        for path in preparation.prepare(root, told, policies):
            typer.echo(path)
    except (checks.TableError, OSError, ValueError) as error:
        raise _refused(error) from None


@app.command()
def certificates(
    root: Annotated[Path, typer.Option(help="Where the volumes are mounted.")] = Path("/etc/backend"),
    public_host: Annotated[str, typer.Option(envvar="PUBLIC_HOST", help="By which clients reach it.")] = "localhost",
    reload: Annotated[int, typer.Option(help="A process that is told by SIGHUP: the broker's.")] = 0,
) -> None:
    """Renew every certificate at half of its life, until SIGTERM."""
    from chassis.audit import lines

    from mesh.compose import preparation

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    kept = preparation.certificates(root, public_host)
    while True:
        due = (kept.next_renewal() - datetime.now(UTC)).total_seconds()
        time.sleep(max(_LEAST_RENEWAL_SECONDS, min(due, _RENEWAL_LOOK_SECONDS)))
        if datetime.now(UTC) < kept.next_renewal():
            continue
        try:
            before = kept.issued()
            kept.ensure()
            for act in kept.replaced(before, "service/mesh"):
                typer.echo(lines.as_json(act, "mesh"))
            if reload:
                os.kill(reload, signal.SIGHUP)
            typer.echo(f"renewed; next at {kept.next_renewal():%Y-%m-%dT%H:%M:%SZ}")
        except OSError as error:
            # Half of their life is left to try again in.
            typer.echo(f"could not be renewed: {error}", err=True)


@app.command(hidden=True)
def volumes(
    root: Annotated[Path, typer.Option(help="The directory to make them in.")],
    owner: Annotated[int, typer.Option(help="Whose they are: a user's number.")],
) -> None:
    """Make the directories that volumes are mounted over: an image's are what a new volume begins as."""
    from mesh.compose import places

    for name in places.VOLUMES:
        (root / name).mkdir(mode=0o700, parents=True)
        os.chown(root / name, owner, owner)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _password(directory: Path, service: Service) -> str:
    from mesh.compose import places

    return (directory / places.password(service, "database")).read_text(encoding="utf-8")


def _refused(error: Exception) -> typer.Exit:
    typer.echo(str(error), err=True)
    return typer.Exit(1)


def main() -> None:
    """Entry point."""
    sys.exit(app())
