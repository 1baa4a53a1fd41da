"""`backend trace`."""

from __future__ import annotations

import json
import os
import secrets as random
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from devstack import state
from devstack.commands.stack import DataDir, console, errors, known_or_exit
from devstack.console import spans, tree
from devstack.layout import DEFAULT_DATA_DIR, Layout
from devstack.logs import files, output
from devstack.logs.events import Event
from devstack.logs.selection import Selection
from devstack.secrets import load_or_create

app = typer.Typer()
# What processes hold spans and lines back for, before they send and write them.
_DELAY_SECONDS = 2.0
_POLL_SECONDS = 0.1
_UNKNOWN = 5


@app.command()
def trace(
    request_id: Annotated[
        str, typer.Argument(metavar="REQUEST_ID", help="Of an answer or a log line; or a trace's id.")
    ] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    header: Annotated[
        bool, typer.Option("--header", help="Print a header for curl -H that has one request traced.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object: spans and log lines.")] = False,
) -> None:
    """What one request did in every process, and its log lines.

    One request in ten is traced (`up --trace-ratio`). Of the others, the spans of a process in which the request failed by
    our fault or was slow are kept.
    """
    layout = known_or_exit(data_dir)
    if header:
        key = load_or_create(layout.secrets).trace_key
        sys.stdout.write(f"x-trace-{key}: 00-{random.token_hex(16)}-{random.token_hex(8)}-01\n")
        return
    if not request_id:
        errors.print("which request? Its id is in every answer (x-request-id) and every log line", style="red")
        raise typer.Exit(2)
    try:
        found, events = _settled(layout, request_id)
    except ValueError as error:
        errors.print(str(error), style="red")
        raise typer.Exit(2) from None
    if as_json:
        sys.stdout.write(json.dumps(_as_json(found, events), indent=2) + "\n")
    elif found.spans or events:
        _show(layout, found, events)
    if not found.spans and not events:
        errors.print(f"nothing is known of {request_id!r}: what is older than an hour is forgotten")
        raise typer.Exit(_UNKNOWN)


def _settled(layout: Layout, request_id: str) -> tuple[spans.Found, list[Event]]:
    """All that is known, once what is on its way has come.

    Raises:
        ValueError: it is no id.
    """
    give_up = time.monotonic() + _DELAY_SECONDS
    while True:
        found = spans.of_request(layout.spans, request_id)
        known = {request_id, *(span.request_id for span in found.spans)} - {""}
        events = [
            event for one in sorted(known) for event in files.read(layout.logs, Selection(request_id=one, routine=True))
        ]
        newest = max(
            [datetime.fromtimestamp(span.ended / 1e9, UTC) for span in found.spans] + [event.time for event in events],
            default=None,
        )
        is_old = newest is not None and (datetime.now(UTC) - newest).total_seconds() > _DELAY_SECONDS
        if is_old or time.monotonic() > give_up:
            return found, sorted(events, key=lambda event: event.time)
        time.sleep(_POLL_SECONDS)


def _show(layout: Layout, found: spans.Found, events: list[Event]) -> None:
    if found.spans:
        console.print(f"trace {found.spans[0].trace_id}\n")
        for line in tree.lines(found.spans):
            console.print(line)
        if found.left_out:
            console.print(f"\nFurther traces of the request, which are not shown: {found.left_out}", style="dim")
        if not any(span.service == "edge" for span in found.spans):
            console.print(
                "\nIt was not sampled: these are the spans of processes in which it failed or was slow.", style="dim"
            )
    else:
        console.print(_why_not_traced(layout))
    console.print()
    output.write(events, sys.stdout, json_lines=False, environment=os.environ)


def _why_not_traced(layout: Layout) -> str:
    current = state.read(layout)
    options = current.options if current is not None else {}
    if "tracing" in str(options.get("without", "")):
        return "This stack traces nothing (--without tracing); what its processes logged:"
    if endpoint := options.get("otlp_endpoint"):
        return f"This stack sends its spans to {endpoint}; what its processes logged:"
    ratio = float(str(options.get("trace_ratio", 0.1)))
    return (
        f"It was not sampled ({ratio:.0%} of all are; `up --trace-ratio`), and no process kept it as failed or slow. "
        "What its processes logged:"
    )


def _as_json(found: spans.Found, events: list[Event]) -> dict[str, object]:
    from devstack.logs.view import as_json

    return {
        "trace_id": found.spans[0].trace_id if found.spans else None,
        "sampled": any(span.service == "edge" for span in found.spans),
        "left_out": found.left_out,
        "spans": [{**asdict(node.span), "depth": node.depth} for node in tree.nodes(found.spans)],
        "log": [json.loads(as_json(event)) for event in events],
    }
