"""`backend logs`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from datetime import datetime
from itertools import chain
from typing import Annotated

import typer

from devstack import state
from devstack.commands.stack import DataDir, console, errors, known_or_exit
from devstack.layout import DEFAULT_DATA_DIR, Layout
from devstack.logs import files, output
from devstack.logs.events import Event
from devstack.logs.selection import Selection, parse_level, parse_since

app = typer.Typer()


@app.command()
def logs(
    name: Annotated[str | None, typer.Argument(help="A process or a service; all merged without it.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    service: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A process, or a service with all its replicas; repeatable."),
    ] = None,
    level: Annotated[str, typer.Option(help="The least: debug, info, warning, error or critical.")] = "debug",
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="10m, 2h, 14:05 or 2026-01-31T14:05:00; local without a zone.")
    ] = None,
    request_id: Annotated[str, typer.Option(metavar="ID", help="Of one request: its id or how that begins.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="With health checks, key fetches and the limiter's calls that went well.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines, as in a pipe.")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Of trace and span, on each line that has them.")] = False,
) -> None:
    """What happened, by time. A line an event on a terminal, JSON lines in a pipe."""
    layout = known_or_exit(data_dir)
    try:
        selection = Selection(
            names=frozenset([*([name] if name else []), *(service or ())]),
            level=parse_level(level),
            since=parse_since(since, datetime.now().astimezone()) if since else None,
            request_id=request_id,
            routine=everything,
        )
    except ValueError as error:
        console.print(str(error), style="red")
        raise typer.Exit(2) from None
    known = files.processes(layout.logs)
    if missing := [
        name for name in sorted(selection.names) if not any(Selection(frozenset([name])).reads(p) for p in known)
    ]:
        console.print(f"there is no log of {missing[0]!r}; there are: {', '.join(known) or 'none'}", style="red")
        raise typer.Exit(2)
    positions: dict[str, int] = {}
    events = files.read(layout.logs, selection, positions if follow else None)
    first = next(events, None)
    if first is not None:
        _show(chain([first], events), as_json=as_json, ids=ids)
    elif not follow:
        errors.print(f"nothing of request {request_id!r}" if request_id else "no such event")
    if not follow:
        return
    if not state.is_running(state.read(layout)):
        errors.print("The stack does not run: there is nothing to follow.")
        raise typer.Exit(3)
    follow_events(layout, selection, positions, as_json=as_json, ids=ids)


def follow_events(
    layout: Layout, selection: Selection, positions: dict[str, int], *, as_json: bool = False, ids: bool = False
) -> None:
    """Show what is written until Ctrl-C, the end of the stack, which is said, or the end of who reads it.

    A closed terminal is looked for: its SIGHUP goes to the process that leads the session, which may keep it to itself
    (make does).
    """

    def goes_on() -> bool:
        return output.is_read(sys.stdout) and state.is_running(state.read(layout))

    _show(files.follow(layout.logs, selection, positions, goes_on), as_json=as_json, ids=ids)
    if output.is_read(sys.stdout):
        errors.print("The stack has stopped.")


def _show(events: Iterable[Event], *, as_json: bool, ids: bool) -> None:
    try:
        output.write(events, sys.stdout, json_lines=as_json, environment=os.environ, ids=ids)
    except OSError:
        if output.is_read(sys.stdout):
            raise
        output.reach_no_more(sys.stdout)
        raise typer.Exit from None
