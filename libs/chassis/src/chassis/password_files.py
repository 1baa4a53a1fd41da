"""Passwords in files, so that they change while everybody serves.

A file is read for each new connection; the worker that `following` makes has the connections renewed soon after it changed. While a server
goes from one password to the next it has two lines, and the first that the server takes counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import structlog

from chassis.workers import Work

_LOOK_SECONDS = 1.0

_log = structlog.get_logger(__name__)


def passwords(file: Path) -> Iterator[str]:
    """What to try, one after the other, until the server takes one.

    The first comes once more at the end, for the server may have changed while the others were tried; and all of it
    begins anew when the file has changed meanwhile.

    Raises:
        OSError: the file cannot be read.
    """
    tried: list[str] = []
    while (lines := file.read_text(encoding="utf-8").split()) != tried:
        yield from lines
        yield from lines[:1] if len(lines) > 1 else ()
        tried = lines


def following(file: Path | None, renew: Callable[[], Awaitable[None]]) -> dict[str, Work]:
    """A worker that calls `renew` whenever the file has been replaced, again until it succeeds; none without a file."""
    return {} if file is None else {f"password {file.name}": partial(_follow, file, renew)}


async def _follow(file: Path, renew: Callable[[], Awaitable[None]]) -> None:
    renewed = _stamp(file)
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            if (stamp := _stamp(file)) == renewed:
                continue
            await renew()
            renewed = stamp
            _log.info("connections renewed: the password has changed", file=file.name)
        except Exception as error:
            # What is connected stays so; the next look tries again.
            _log.warning("connections could not be renewed", file=file.name, error=str(error))


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_ino
