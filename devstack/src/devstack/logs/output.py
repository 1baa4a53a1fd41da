"""Where events go: lines for a person at a terminal, JSON lines for a file, a pipe or a program."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TextIO

from devstack.logs.events import Event
from devstack.logs.view import Lines, as_json


def write(
    events: Iterable[Event], out: TextIO, *, json_lines: bool, environment: Mapping[str, str], ids: bool = False
) -> None:
    """Write each event as it comes.

    Args:
        events: in the order in which they are shown.
        out: JSON lines go to whatever is not a terminal.
        json_lines: JSON lines for a terminal, too.
        ids: those of trace and span are in a person's lines as well; in JSON they are at any time.
        environment: NO_COLOR (no-color.org) and a dumb TERM are respected.
    """
    terminal = out.isatty()
    lines = Lines(colour=terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb", ids=ids)
    for event in events:
        text = lines.line(event, datetime.now(UTC)) if terminal and not json_lines else as_json(event)
        out.write(text + "\n")
        out.flush()


def is_read(out: TextIO) -> bool:
    """Whether whom it is for is still there: not after a terminal was closed, or the reader of a pipe has gone."""
    poll = select.poll()
    poll.register(out.fileno(), 0)
    return not poll.poll(0)


def reach_no_more(out: TextIO) -> None:
    """The reader of a pipe has gone (`logs | head`): nothing more is written, nor complained about at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
