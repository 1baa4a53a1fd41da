"""`backend migrate`, `backup` and `restore`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from devstack.commands.stack import DataDir, console, running_or_exit
from devstack.layout import DEFAULT_DATA_DIR, Layout

app = typer.Typer()


@app.command()
def migrate(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be run.")] = False,
) -> None:
    """Run the migrations that the databases do not have yet. The services that use them go on."""
    from mesh import migrations

    from devstack import postgres
    from devstack.secrets import load_or_create

    layout = Layout(data_dir.resolve())
    running_or_exit(layout)
    secrets = load_or_create(layout.secrets)
    try:
        if dry_run:
            found = asyncio.run(postgres.pending(layout, secrets))
        else:
            found = asyncio.run(postgres.migrate(layout, secrets, console.print))
    except migrations.MigrationError as error:
        console.print(str(error), style="red")
        raise typer.Exit(1) from None
    for database, files in found.items():
        for migration in files:
            how = "in a transaction" if migration.in_transaction else "beside transactions"
            console.print(f"{database}  {migration.name}  {f'would run {how}' if dry_run else 'done'}")
    if not any(found.values()):
        console.print("the databases have every migration")


@app.command()
def backup(
    directory: Annotated[Path, typer.Argument(help="Where to; made, and private to its owner.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Write what the databases hold, while they serve. An archive of pg_dump for each. No secrets, keys or sessions."""
    from devstack import backups
    from devstack.secrets import load_or_create

    layout = Layout(data_dir.resolve())
    running_or_exit(layout)
    try:
        archives = asyncio.run(backups.back_up(layout, load_or_create(layout.secrets), directory.resolve()))
    except backups.BackupError as error:
        console.print(str(error), style="red")
        raise typer.Exit(1) from None
    for name, archive in archives.items():
        size = (directory / archive.file).stat().st_size
        console.print(f"{name}  {directory / archive.file}  {size} bytes")


@app.command()
def restore(
    directory: Annotated[Path, typer.Argument(help="Of a backup.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Go back to a backup. What has happened since is lost, everybody logs in again, and 503 for some seconds."""
    from chassis.audit.acts import operator
    from mesh import migrations

    from devstack import audit, backups
    from devstack.secrets import load_or_create

    layout = Layout(data_dir.resolve())
    running = running_or_exit(layout)
    if not yes:
        typer.confirm(f"Lose everything that has happened since {directory} was made?", abort=True)
    secrets = load_or_create(layout.secrets)
    try:
        asyncio.run(backups.restore(layout, secrets, directory.resolve(), running, console.print))
    except (backups.BackupError, migrations.MigrationError) as error:
        console.print(str(error), style="red")
        raise typer.Exit(1) from None
    audit.tell(layout, "databases.restored", "databases/all", operator(), after={"backup": str(directory.resolve())})
    console.print("restored; everybody has to log in again")
