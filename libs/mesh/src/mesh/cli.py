"""`backend-mesh`: what follows from the table of services, for any place that the backend runs at.

Where `backend` runs everything on one machine, this writes files and brings databases up to date for whatever runs the
processes instead (Compose, Kubernetes).
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

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
) -> None:
    """Run the migrations that the services' databases do not have yet, beside those who use them."""
    from mesh import schemas
    from mesh.migrations import MigrationError

    try:
        chosen = schemas.of_services(root, service or [])
        done = asyncio.run(schemas.pending(url, chosen) if dry_run else schemas.migrate(url, chosen, typer.echo))
    except (MigrationError, schemas.SchemaError) as error:
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


def _refused(error: Exception) -> typer.Exit:
    typer.echo(str(error), err=True)
    return typer.Exit(1)


def main() -> None:
    """Entry point."""
    sys.exit(app())
