"""Why a stack did not start, as a person wants to read it: the cause, this run's last lines, what to do.

Nothing that is not damaged is ever mended by deleting it: `backend reset` is named for damage alone, after the backup.
"""

from __future__ import annotations

import errno
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mesh.topology import service_of

from devstack.logs.events import Parser
from devstack.logs.view import Lines

_TAIL_LINES = 40
_ASK = "the lines above say more; `backend logs` shows all of them"
_SPACE = "make room on the disk that has the data directory (`df -h` shows them), or choose another with --data-dir"
_MEMORY = "end something that uses memory, then start again"
_RIGHTS = "let this user read and write it (`ls -ld` shows whose it is), or choose another directory with --data-dir"
_FILES = "raise the limit of open files (`ulimit -n 4096`), then start again"
_READ_ONLY = "choose a directory that can be written; --data-dir is the one of the stack"
_ENVIRONMENT = "make the environment anew: `rm -rf .venv`, then start again"
_PORT = "stop what listens there, or start on other ports with `backend up --port-offset N`"
DAMAGED = (
    "restore a backup; without one, and when all data of this stack may go, start anew with `backend reset`, which deletes "
    "them"
)


@dataclass(frozen=True, slots=True)
class _Known:
    """What lines of a log mean."""

    pattern: re.Pattern[str]
    remedy: str


def _known(pattern: str, remedy: str) -> _Known:
    return _Known(re.compile(pattern), remedy)


# The first that is found, so what is more particular comes first.
_KNOWN = (
    _known(
        "does not implement its contract",
        "write what is missing, or take it out of the contract (`make lint` says the same without a start)",
    ),
    _known("inotify", "too many files are watched: stop other stacks, or `sysctl fs.inotify.max_user_instances=512`"),
    _known("No space left on device|Disk quota exceeded", _SPACE),
    _known("Cannot allocate memory|could not map anonymous shared memory|std::bad_alloc", _MEMORY),
    _known("Too many open files", _FILES),
    _known("Address already in use", _PORT),
    _known("Read-only file system", _READ_ONLY),
    _known(
        "lock file .* already exists|pre-existing shared memory block",
        "another PostgreSQL still works in this data directory, or did when the machine stopped: end the process that its "
        "line names, then start again",
    ),
    _known("Permission denied|Operation not permitted", _RIGHTS),
    _known("error while loading shared libraries|ModuleNotFoundError|ImportError", _ENVIRONMENT),
    _known(
        "could not access the server configuration file|could not locate a valid checkpoint record"
        "|invalid primary checkpoint|could not locate required checkpoint record|invalid magic number"
        "|could not open (file|directory) .*No such file|invalid data in file|Bad file format reading the append only file"
        "|Error reading the append only file|Wrong signature trying to load",
        DAMAGED,
    ),
)
# What Envoy says at every start, whatever comes of it: its HTTP/2 codec is our choice (ADR 0011), and it asks for the key
# set again until the BFF serves it.
_OF_EVERY_START = ("use_oghttp2_codec' is marked as work-in-progress", "Jwks async fetching url=")
# What comes before what the servers themselves say when they give up: PostgreSQL, Valkey, a program that cannot run, and NATS.
_MARKS = ("FATAL:  ", "PANIC:  ", " # ", "postgres: ", "[FTL] ", "nats-server: ")
_OF_THE_SYSTEM = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.ENOMEM: _MEMORY,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _READ_ONLY,
    errno.ENOTDIR: _READ_ONLY,
    errno.EISDIR: _READ_ONLY,
    errno.ENAMETOOLONG: _READ_ONLY,
    errno.ENOEXEC: _ENVIRONMENT,
}


class StartupError(Exception):
    """The stack could not start: what failed, why, and what to do.

    Args:
        process: what failed.
        cause: why.
        remedy: what to do.
        tail: what it has written in this run.
    """

    def __init__(self, process: str, cause: str, remedy: str, tail: str = "") -> None:
        lines = [f"{process}: {cause}"]
        if tail:
            lines += [f"--- the last lines of {process}'s log", tail.rstrip(), "---"]
        super().__init__("\n".join([*lines, f"What to do: {remedy}"]))
        self.process = process


def of_process(process: str, how: str, written: str) -> StartupError:
    """The failure of a process, by what it has written.

    Args:
        process: its name.
        how: what was seen of it: that it ended, or was not ready in time.
        written: all of its log's lines of this run.
    """
    said = next(_said(written), "")
    known = next((known for known in _KNOWN if known.pattern.search(written)), None)
    remedy = known.remedy if known else _ASK.replace("logs", f"logs {process}")
    return StartupError(process, f"{said} ({how})" if said else how, remedy, _last_lines(process, written))


def _last_lines(process: str, written: str) -> str:
    """As `backend logs` shows them on a terminal."""
    now = datetime.now(UTC)
    parser, lines = Parser(process, now), Lines(colour=False)
    told = (line for line in written.split("\n") if not any(always in line for always in _OF_EVERY_START))
    shown = [lines.line(event, now) for event in map(parser.parse, told) if event is not None]
    return "\n".join("\n".join(shown).splitlines()[-_TAIL_LINES:])


def _said(written: str) -> Iterator[str]:
    for line in written.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            yield from (line.partition(mark)[2] for mark in _MARKS if mark in line)
            continue
        if isinstance(event, dict) and event.get("level") in ("error", "critical"):
            yield ": ".join(str(event[name]) for name in ("event", "error") if name in event)


def explained(error: BaseException) -> str:
    """A start's failure, or several, as `up` shows them."""
    if isinstance(error, BaseExceptionGroup):
        return "\n\n".join(map(explained, error.exceptions))
    if isinstance(error, StartupError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {error.filename}" if error.filename else ""
        return f"backend: {error.strerror}{where}\nWhat to do: {_remedy(error)}"
    return f"backend: {type(error).__name__}: {error}\nWhat to do: {_ASK}"


def causes(error: BaseException) -> list[BaseException]:
    """A start's failure, or those that it has several of."""
    return (
        [cause for one in error.exceptions for cause in causes(one)]
        if isinstance(error, BaseExceptionGroup)
        else [error]
    )


def not_named(problems: Iterable[str], error: BaseException) -> list[str]:
    """Those of some problems, each "SERVICE: WHAT", that a start's failure does not name."""
    failed = [(service_of(one.process), str(one)) for one in causes(error) if isinstance(one, StartupError)]

    def is_named(problem: str) -> bool:
        service, _, what = problem.partition(": ")
        return any(problem in text or (name == service and what in text) for name, text in failed)

    return [problem for problem in problems if not is_named(problem)]


def _remedy(error: OSError) -> str:
    # What is missing is a piece of the environment, or a directory that cannot be made (as below /proc).
    if error.errno == errno.ENOENT:
        return _ENVIRONMENT if str(error.filename or sys.prefix).startswith(sys.prefix) else _READ_ONLY
    return _OF_THE_SYSTEM.get(error.errno or 0, _ASK)


def lines_since(log: Path, begins: int) -> str:
    """What has been written to a log after its first `begins` bytes."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        # One that has been shortened meanwhile has only newer lines.
        file.seek(begins if begins <= log.stat().st_size else 0)
        return file.read().decode(errors="replace")
