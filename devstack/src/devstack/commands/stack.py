"""What commands have in common: where the stack is, where they write, and that it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from devstack import state
from devstack.layout import Layout
from devstack.logs.view import printable
from devstack.state import StackState
from devstack.typed import as_typed


class _Terminal(Console):
    """Shows text as it is: nothing in it is markup, and nothing acts on the terminal.

    Nor is a line broken: a path or a log line in two parts can be neither searched nor copied.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(highlight=False, soft_wrap=True, markup=False, emoji=False, stderr=stderr)

    # The arguments are those of the library.
    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[explicit-any]
        """What a string is on the terminal, alone or in a table."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


console = _Terminal()
errors = _Terminal(stderr=True)

# Exit statuses that say what there is not, in all commands.
NOT_RUNNING = 3


def _writable_name(path: Path) -> Path:
    """A path that configuration files and JSON, which are UTF-8, can hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("its name is not UTF-8; choose another directory") from None
    return path


DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        callback=_writable_name,
        metavar="DIR",
        envvar="BACKEND_DATA_DIR",
        show_default=".backend of the clone",
        help="Where the stack keeps everything.",
    ),
]


def exists(layout: Layout) -> bool:
    """Whether a stack has ever been started there; when none has, that is said."""
    try:
        layout.state_file.lstat()
    except FileNotFoundError:
        said = as_typed(f"there is no stack in {layout.data_dir}; `backend up` makes one", layout.data_dir)
        errors.print(said, style="red")
        return False
    return True


def known_or_exit(data_dir: Path) -> Layout:
    """Where a stack is, whether it runs or not.

    Raises:
        typer.Exit: 3, there is none.
    """
    layout = Layout(data_dir.resolve())
    if not exists(layout):
        raise typer.Exit(NOT_RUNNING)
    return layout


def is_foreign(layout: Layout) -> bool:
    """Whether a directory has something in it, and nothing of a stack: it is neither started in nor deleted."""
    marks = (layout.state_file, layout.logs / "supervisor.log", layout.data_dir / "postgres" / "PG_VERSION")
    return layout.data_dir.is_dir() and any(layout.data_dir.iterdir()) and not any(mark.exists() for mark in marks)


def is_running(layout: Layout) -> bool:
    """Whether the stack runs."""
    return state.is_running(state.read(layout))


def running_or_exit(layout: Layout) -> StackState:
    """The state of the stack that runs.

    Raises:
        typer.Exit: 3, none does.
    """
    if not exists(layout):
        raise typer.Exit(NOT_RUNNING)
    current = state.read(layout)
    if current is None or not state.is_running(current):
        console.print("not running")
        raise typer.Exit(NOT_RUNNING)
    if current.stopping:
        console.print("it is being stopped")
        raise typer.Exit(NOT_RUNNING)
    return current


def identities_or_exit(data_dir: Path) -> Layout:
    """Where a stack is that has made its certificates and keys.

    Raises:
        typer.Exit: 3, there is none, or its first start did not come so far.
    """
    layout = known_or_exit(data_dir)
    if not layout.pki.exists():
        said = "nothing here yet; certificates and keys are made by the first `backend up` that comes so far"
        errors.print(as_typed(said, layout.data_dir), style="red")
        raise typer.Exit(NOT_RUNNING)
    return layout
