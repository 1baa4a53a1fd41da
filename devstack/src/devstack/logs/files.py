"""The log files of a stack as one stream of events in the order of their times, read once or followed.

The supervisor bounds each log by copying it to NAME.log.1 and truncating it. A request's line has the time at which
the request began and is written when it has ended, so a file is only nearly in order.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from devstack.logs.events import Event, Parser
from devstack.logs.selection import Selection

# Longer than any request may take: its line is written this much after its time at most.
_DISORDER = timedelta(seconds=60)
# Envoy writes its access lines within half a second (chassis.launch): lines of all processes wait for each other.
_HOLD_SECONDS = 0.7
_POLL_SECONDS = 0.1
# How often a follower asks whether anything still writes.
_ALIVE_SECONDS = 1.0
_CHUNK_BYTES = 1 << 16

_Keyed = tuple[datetime, str, int, Event]


def processes(directory: Path) -> list[str]:
    """The names of those that have a log."""
    return sorted(path.stem for path in directory.glob("*.log"))


def read(directory: Path, selection: Selection, reached: dict[str, int] | None = None) -> Iterator[Event]:
    """Every event there is now, the older part of each log included, by time.

    Args:
        directory: where the logs are.
        selection: what is wanted.
        reached: takes for each process where its log was read to, for `follow` to go on from there; a last line that
            is not whole yet is then left to it.
    """
    streams = [
        _in_order(_selected(_parsed(directory, process, reached), selection))
        for process in processes(directory)
        if selection.reads(process)
    ]
    for _, _, _, event in heapq.merge(*streams):
        yield event


def follow(
    directory: Path, selection: Selection, positions: dict[str, int], is_running: Callable[[], bool]
) -> Iterator[Event]:
    """What is written from now on, by time, until nothing runs that could write; each event a moment later.

    Args:
        directory: where the logs are; files that appear later are read from their beginning.
        selection: what is wanted.
        positions: from which byte to read each process's log (of `read`, or `ends`).
        is_running: whether anything may still write.
    """
    tails: dict[str, _Tail] = {}
    held: list[tuple[_Keyed, float]] = []
    asked, running = time.monotonic(), True
    with contextlib.ExitStack() as stack:
        while True:
            now = time.monotonic()
            if now - asked >= _ALIVE_SECONDS:
                asked, running = now, is_running()
            for process in processes(directory):
                if process not in tails and selection.reads(process):
                    tails[process] = tail = _Tail(directory, process, positions.get(process, 0))
                    stack.callback(tail.close)
            for tail in tails.values():
                for keyed in _selected(tail.events(to_the_end=not running), selection):
                    heapq.heappush(held, (keyed, now))
            while held and (not running or now - held[0][1] >= _HOLD_SECONDS):
                yield heapq.heappop(held)[0][3]
            if not running:
                return
            time.sleep(_POLL_SECONDS)


def ends(directory: Path) -> dict[str, int]:
    """Where each log ends now."""
    return {path.stem: path.stat().st_size for path in directory.glob("*.log")}


def _parsed(directory: Path, process: str, reached: dict[str, int] | None) -> Iterator[_Keyed]:
    path = directory / f"{process}.log"
    parser: Parser | None = None
    number = 0
    for part in (path.with_suffix(".log.1"), path):
        with contextlib.suppress(FileNotFoundError), part.open("rb") as file:
            parser = parser or Parser(process, _last_written(file.fileno()))
            position = 0
            for raw in file:
                if reached is not None:
                    if not raw.endswith(b"\n"):
                        break
                    position += len(raw)
                    reached[process] = position
                if (event := parser.parse(_decoded(raw))) is not None:
                    number += 1
                    yield event.time, process, number, event


def _selected(keyed: Iterable[_Keyed], selection: Selection) -> Iterator[_Keyed]:
    return (entry for entry in keyed if selection.shows(entry[3]))


def _in_order(nearly: Iterable[_Keyed]) -> Iterator[_Keyed]:
    """Sort a stream in which nothing is later than `_DISORDER` after its place."""
    held: list[_Keyed] = []
    newest = datetime.min.replace(tzinfo=UTC)
    for entry in nearly:
        heapq.heappush(held, entry)
        newest = max(newest, entry[0])
        while newest - held[0][0] > _DISORDER:
            yield heapq.heappop(held)
    while held:
        yield heapq.heappop(held)


class _Tail:
    """The end of one growing log: survives its truncation, its rotation and its replacement by another file."""

    def __init__(self, directory: Path, process: str, position: int) -> None:
        self._path = directory / f"{process}.log"
        self._process = process
        self._file = self._path.open("rb")
        # A place in the middle of a line is one that was being written: it is read from its beginning.
        start = max(0, position - _CHUNK_BYTES)
        self._file.seek(start)
        self._file.seek(start + self._file.read(position - start).rfind(b"\n") + 1)
        self._parser = Parser(process, _last_written(self._file.fileno()))
        self._partial = b""
        self._number = 0

    def close(self) -> None:
        self._file.close()

    def events(self, *, to_the_end: bool) -> Iterator[_Keyed]:
        """What is new. A line without its end waits for it, unless nothing will be written any more."""
        for chunk in self._chunks():
            *lines, self._partial = (self._partial + chunk).split(b"\n")
            yield from self._parse(lines)
        if to_the_end:
            last, self._partial = self._partial, b""
            yield from self._parse([last])

    def _parse(self, lines: Iterable[bytes]) -> Iterator[_Keyed]:
        for line in lines:
            if (event := self._parser.parse(_decoded(line))) is not None:
                self._number += 1
                yield event.time, self._process, self._number, event

    def _chunks(self) -> Iterator[bytes]:
        if self._file.tell() > os.fstat(self._file.fileno()).st_size:
            yield from self._rest_of_the_copy(self._file.tell())
            self._file.seek(0)
        yield from iter(lambda: self._file.read(_CHUNK_BYTES), b"")
        if self._replaced():
            self._file.close()
            self._file = self._path.open("rb")
            yield from iter(lambda: self._file.read(_CHUNK_BYTES), b"")

    def _rest_of_the_copy(self, position: int) -> Iterator[bytes]:
        """What was written between our last look and the truncation is in the copy, at the same place."""
        with contextlib.suppress(FileNotFoundError), self._path.with_suffix(".log.1").open("rb") as copy:
            copy.seek(position)
            yield from iter(lambda: copy.read(_CHUNK_BYTES), b"")

    def _replaced(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False


def _decoded(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace").rstrip("\r\n")


def _last_written(descriptor: int) -> datetime:
    return datetime.fromtimestamp(os.fstat(descriptor).st_mtime, UTC)
