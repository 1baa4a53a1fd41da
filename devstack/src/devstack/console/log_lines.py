"""The newest lines of all logs, for a page that asks again and again for what is new.

Nothing is read while nobody looks. Of each log a look reads what was written since the last, and of much the end alone,
which is said; the first reads the end. What is held is bounded in lines, and in what each line may have.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice, takewhile
from pathlib import Path

from devstack.logs import files
from devstack.logs.events import Event, Level, Parser
from devstack.logs.selection import Selection, is_routine
from devstack.logs.view import detail, outcome, printable

MOST_HELD = 3_000
MOST_TOLD = 300
_FIRST_BYTES = 256 * 1024
_MOST_READ_BYTES = 512 * 1024
# A line that is longer is shown cut; of a whole event no more is held than this.
_TEXT_CHARACTERS = 2_000
_MOST_TAILS = 64


@dataclass(frozen=True, slots=True)
class Line:
    """One event, to be shown.

    Attributes:
        number: later ones have higher numbers, in the order in which they were read.
        at: Unix seconds.
        outcome: of a request, its status; else empty.
        detail: everything else that the line says.
        more: further lines of it, such as a stack.
    """

    number: int
    at: float
    process: str
    level: str
    text: str
    outcome: str
    detail: str
    request_id: str
    trace_id: str
    more: str = ""


@dataclass(frozen=True, slots=True)
class Lines:
    """What a page is told: lines by number, and the number to ask after the next time."""

    lines: Sequence[Line]
    last: int
    processes: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Held:
    """A line, and what it is selected by."""

    line: Line
    level: Level
    routine: bool


@dataclass(slots=True)
class _Tail:
    """How far one log was read."""

    parser: Parser
    inode: int
    position: int
    # The beginning of a line whose end has not been written.
    partial: bytes = b""
    skips: bool = False


class LogLines:
    """Those of one stack.

    Args:
        directory: of the logs.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tails: dict[str, _Tail] = {}
        self._held: deque[_Held] = deque(maxlen=MOST_HELD)
        self._number = 0

    def read(self) -> None:
        """Read what is new in all logs."""
        events = [event for process in files.processes(self._directory)[:_MOST_TAILS] for event in self._new(process)]
        for event in sorted(events, key=lambda event: event.time)[-MOST_HELD:]:
            self._number += 1
            self._held.append(_Held(_line(self._number, event), event.level, is_routine(event)))

    def after(self, number: int, selection: Selection, contains: str = "") -> Lines:
        """The newest lines after one that are selected.

        Args:
            number: of the last line that is known.
            selection: which.
            contains: a part of what they say, in letters of any case.
        """
        wanted = contains.casefold()
        found = (
            held.line
            for held in takewhile(lambda held: held.line.number > number, reversed(self._held))
            if held.level >= selection.level
            and selection.reads(held.line.process)
            and held.line.request_id.startswith(selection.request_id)
            and (selection.routine or not held.routine)
            and (not wanted or wanted in _said(held.line))
        )
        newest = list(islice(found, MOST_TOLD))
        return Lines(newest[::-1], self._number, files.processes(self._directory)[:_MOST_TAILS])

    def _new(self, process: str) -> Iterator[Event]:
        try:
            with (self._directory / f"{process}.log").open("rb") as file:
                status = os.fstat(file.fileno())
                tail = self._tail(process, status)
                if (too_much := status.st_size - tail.position - _MOST_READ_BYTES) > 0:
                    yield _left_out(process, too_much)
                    tail.position += too_much
                    tail.partial, tail.skips = b"", True
                file.seek(tail.position)
                content = file.read(_MOST_READ_BYTES)
        except OSError:
            # It was removed just now.
            return
        tail.position += len(content)
        yield from _events(tail, content)

    def _tail(self, process: str, status: os.stat_result) -> _Tail:
        """How far a log was read; from its beginning when it has been made short, or is another."""
        tail = self._tails.get(process)
        if tail is None or tail.inode != status.st_ino or tail.position > status.st_size:
            began = datetime.fromtimestamp(status.st_mtime, UTC)
            start = max(0, status.st_size - _FIRST_BYTES) if tail is None else 0
            tail = self._tails[process] = _Tail(Parser(process, began), status.st_ino, start, skips=start > 0)
        return tail


def _events(tail: _Tail, content: bytes) -> Iterator[Event]:
    *whole, tail.partial = (tail.partial + content).split(b"\n")
    if tail.skips and whole:
        # It began before what was read.
        del whole[0]
        tail.skips = False
    # Half a line that goes on for so long is none that anybody reads to its end.
    tail.partial = tail.partial[:_MOST_READ_BYTES]
    for raw in whole:
        if (event := tail.parser.parse(raw.decode(errors="backslashreplace").rstrip("\r"))) is not None:
            yield event


def _left_out(process: str, count: int) -> Event:
    text = f"{count // 1024} KiB were written too fast to be shown here: `backend logs {process}`"
    return Event(datetime.now(UTC), process, Level.WARNING, text)


def _line(number: int, event: Event) -> Line:
    first, *others = event.text.splitlines() or [""]
    stack = [text for key in ("exception", "stack") if isinstance(text := event.fields.get(key), str)]
    if event.is_request:
        first = f"{event.fields['method']} {event.fields['path']}"
    return Line(
        number,
        event.time.timestamp(),
        event.process,
        event.level.name.lower(),
        _short(first),
        outcome(event),
        _short(detail(event)),
        _short(event.request_id),
        _short(trace) if isinstance(trace := event.fields.get("trace_id"), str) else "",
        _short("\n".join([*others, *stack])),
    )


def _said(line: Line) -> str:
    return f"{line.text} {line.outcome} {line.detail} {line.request_id} {line.trace_id} {line.more}".casefold()


def _short(text: str) -> str:
    # Of a stack the end says what failed.
    half = _TEXT_CHARACTERS // 2
    cut = text if len(text) <= _TEXT_CHARACTERS else f"{text[:half]}…{text[-half:]}"
    return "\n".join(map(printable, cut.expandtabs(4).split("\n")))
