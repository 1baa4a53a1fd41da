"""`backend new`."""

from __future__ import annotations

from typing import Annotated

import typer

from devstack.commands.stack import console

app = typer.Typer(help="Make something new in this repository.")


@app.callback()
def new() -> None:
    """Make something new in this repository."""


@app.command("service")
def service(
    name: Annotated[
        str,
        typer.Argument(
            help="Of its folder, package, distribution, process and identity; loyalty_points, for instance."
        ),
    ],
    database: Annotated[bool, typer.Option("--database", help="With a database of its own.")] = False,
) -> None:
    """Make a service that runs. Its contract, code, tests, database and row in the table of services."""
    from devstack import new_service

    try:
        made = new_service.make(name, database=database)
    except new_service.NotMadeError as error:
        console.print(str(error), style="red")
        raise typer.Exit(2) from None
    console.print("written\n" + "\n".join(f"  {path}" for path in made.files))
    console.print(
        f"  libs/mesh/src/mesh/topology.py: its row (ports {made.row.port} and {made.row.ops_port}, before the offset)\n"
        "generated\n  its messages, stubs"
        + (", queries" if database else "")
        + ", configuration page and import contracts\n\n"
        f"What to do next:\n  make test T=services/{name}\n  make run\n"
        f"  docs/extending.md: a column, an operation that clients can call; its contract is\n"
        f"  api/{made.row.contracts[0]}",
    )
