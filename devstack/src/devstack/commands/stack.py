"""What commands have in common: where the stack is, where they write, and that it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from devstack import state
from devstack.layout import Layout
from devstack.state import StackState

# Lines are printed as they are: a path or a log line broken in two can be neither searched nor copied.
console = Console(highlight=False, soft_wrap=True)
errors = Console(highlight=False, soft_wrap=True, stderr=True)

DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="BACKEND_DATA_DIR", help="Where the stack keeps everything.")
]


def running_or_exit(layout: Layout) -> StackState:
    """The state of the stack that runs.

    Raises:
        typer.Exit: 3, none does.
    """
    current = state.read(layout)
    if current is None or not state.is_running(current):
        console.print("not running")
        raise typer.Exit(3)
    return current
