"""`backend secrets`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from devstack.commands.stack import DataDir, console, known_or_exit, running_or_exit
from devstack.layout import DEFAULT_DATA_DIR, Layout
from devstack.options import Options

app = typer.Typer(help="The passwords of services in PostgreSQL and Valkey.")


@app.callback(invoke_without_command=True)
def show(context: typer.Context, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Which passwords there are and since when; never the passwords."""
    if context.invoked_subcommand is not None:
        return
    layout = known_or_exit(data_dir)
    for path in sorted((layout.secrets / "passwords").glob("*")):
        since = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        console.print(f"{path.name:<16} since {since:%Y-%m-%d %H:%M:%S}Z")


@app.command()
def rotate(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    wait: Annotated[
        float, typer.Option(min=2, help="Seconds until connections that were opened with an old password are ended.")
    ] = 15.0,
) -> None:
    """New passwords of databases and Valkey. The administrators', too, while everything serves; the old ones end."""
    from chassis.audit.acts import operator

    from devstack import audit, rotation

    layout = Layout(data_dir.resolve())
    current = running_or_exit(layout)
    outcome = asyncio.run(rotation.rotate(layout, msgspec.convert(current.options, Options), wait))
    audit.tell(layout, "passwords.rotated", "passwords/all", operator(), after={"connections_ended": outcome.ended})
    console.print("every service has connected with its new password; the old ones are refused")
    if outcome.ended:
        console.print(f"{outcome.ended} connections that were opened with an old password have been ended")
