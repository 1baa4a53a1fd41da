"""`backend admin`."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from devstack.commands.stack import DataDir, running_or_exit
from devstack.layout import DEFAULT_DATA_DIR, Layout
from devstack.options import Options

app = typer.Typer(help="Who administers users.", no_args_is_help=True)


# An address may begin like an option.
@app.command("create", context_settings={"ignore_unknown_options": True})
def create(
    email: Annotated[str, typer.Argument(help="The address to log in with.")],
    name: Annotated[str, typer.Option(help="The name shown.")] = "Administrator",
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """An administrator. The password is asked for, or read from standard input; it appears in no process list."""
    from devstack import audit, services
    from devstack.processes import base_environment
    from devstack.secrets import load_or_create

    layout = Layout(data_dir.resolve())
    running_or_exit(layout)
    password = (
        typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        if sys.stdin.isatty()
        else sys.stdin.readline().rstrip("\n")
    )
    variables = services.environment("user", layout, load_or_create(layout.secrets), Options())
    done = subprocess.run(
        [sys.executable, "-m", "user.create_user", "--", email, name, "admin"],
        env={**base_environment(), **variables, "LOG_LEVEL": "error"},
        input=password + "\n",
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    sys.stdout.write(audit.kept(layout, done.stdout))
    raise typer.Exit(done.returncode)
