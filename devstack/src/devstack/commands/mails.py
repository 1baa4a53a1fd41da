"""`backend mails`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, TypeVar
from uuid import UUID

import typer
from rich.table import Table

from devstack import mails
from devstack.commands.stack import DataDir, console, errors, known_or_exit, running_or_exit
from devstack.layout import DEFAULT_DATA_DIR, Layout
from devstack.logs.view import printable

app = typer.Typer(help="Mails that were sent, and those that were not.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="JSON, an object a line.")]
_UNKNOWN = 5
T = TypeVar("T")


@app.command("list")
def list_mails(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    count: Annotated[int, typer.Option("-n", "--count", min=1, metavar="N", help="So many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """What the mailbox has taken, the newest first."""
    found = mails.newest(known_or_exit(data_dir).mails, count)
    table = Table("id", "received", "times", "to", "subject", box=None)
    for mail in found:
        told = {"id": mail.id, "received": mail.received[0].isoformat(), "times": len(mail.received)}
        if as_json:
            _write({**told, "to": mail.recipient, "subject": mail.subject, "message_id": mail.message_id})
        cells = (
            mail.id,
            f"{mail.received[0]:%Y-%m-%d %H:%M:%S}",
            str(len(mail.received)),
            mail.recipient,
            mail.subject,
        )
        table.add_row(*map(printable, cells))
    if not as_json:
        console.print(table if found else "no mail has come")


@app.command()
def show(
    mail_id: Annotated[str, typer.Argument(metavar="ID", show_default=False, help="As `list` shows it.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    html: Annotated[bool, typer.Option("--html", help="As HTML, instead of the text.")] = False,
) -> None:
    """One of them."""
    mail = mails.one(known_or_exit(data_dir).mails, mail_id)
    if mail is None:
        errors.print(f"there is no mail {printable(mail_id)!r}", style="red", markup=False)
        raise typer.Exit(_UNKNOWN)
    if html:
        # As it is for a browser, and of no effect on a terminal.
        sys.stdout.write("\n".join(map(printable, mail.html.split("\n"))) if sys.stdout.isatty() else mail.html)
        return
    head = {"From": mail.sender, "To": mail.recipient, "Subject": mail.subject, "Message-ID": mail.message_id}
    for name, value in head.items():
        console.print(f"{name}: {printable(value)}", markup=False)
    console.print()
    for line in mail.text.splitlines():
        console.print(printable(line), markup=False)


@app.command()
def queue(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """What waits to be sent, was refused or given up, and why."""
    from devstack.mail_queue import not_sent

    found = _done(not_sent(_running(data_dir)))
    table = Table("event", "kind", "state", "attempts", "noted", "next attempt", "error", box=None)
    for mail in found:
        moments = (mail.noted_at.isoformat(timespec="seconds"), mail.next_attempt_at.isoformat(timespec="seconds"))
        if as_json:
            told = {"event": str(mail.event_id), "kind": mail.kind, "state": mail.state, "attempts": mail.attempts}
            _write({**told, "noted": moments[0], "next_attempt": moments[1], "error": mail.last_error})
        following = moments[1] if mail.state == "waiting" else ""
        cells = (mail.kind, mail.state, str(mail.attempts), moments[0], following, mail.last_error)
        table.add_row(str(mail.event_id), *map(printable, cells))
    if not as_json:
        console.print(table if found else "nothing waits, and nothing was refused or given up")


@app.command()
def again(
    event: Annotated[
        UUID | None, typer.Argument(metavar="EVENT", show_default=False, help="As `queue` shows it.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every one of them.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Send what was refused or given up once more."""
    from devstack.mail_queue import again as send_again

    if (event is None) != every:
        errors.print("which? Its event, or --all", style="red")
        raise typer.Exit(2)
    found = _done(send_again(_running(data_dir), event))
    for event_id in found:
        console.print(f"{event_id}  is sent again")
    if event is not None and not found:
        errors.print(f"of {event} no mail was refused or given up", style="red", markup=False)
        raise typer.Exit(_UNKNOWN)


def _running(data_dir: Path) -> Layout:
    layout = Layout(data_dir.resolve())
    return Layout(layout.data_dir, running_or_exit(layout).port_offset)


def _done(work: Coroutine[None, None, T]) -> T:
    import asyncpg

    try:
        return asyncio.run(work)
    except (OSError, asyncpg.PostgresError) as error:
        errors.print(f"PostgreSQL does not answer: {error or type(error).__name__}", style="red", markup=False)
        raise typer.Exit(1) from None


def _write(found: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
