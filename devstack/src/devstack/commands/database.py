"""`backend migrate`."""

from __future__ import annotations

import asyncio
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
    """Run the migrations that the databases do not have yet, beside the services that use them."""
    from devstack import migrations, postgres
    from devstack.secrets import load_or_create

    layout = Layout(data_dir.resolve())
    running_or_exit(layout)
    secrets = load_or_create(layout.secrets)
    try:
        if dry_run:
            found = asyncio.run(postgres.pending(layout, secrets))
        else:
            found = asyncio.run(postgres.migrate(layout, secrets, lambda line: console.print(line, markup=False)))
    except migrations.MigrationError as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    for database, files in found.items():
        for migration in files:
            how = "in a transaction" if migration.in_transaction else "beside transactions"
            console.print(f"{database}  {migration.name}  {f'would run {how}' if dry_run else 'done'}", markup=False)
    if not any(found.values()):
        console.print("the databases have every migration")
