"""Why a stack did not start, as a person wants to read it: the cause, the log's last lines, what to do."""

from __future__ import annotations

from pathlib import Path

_TAIL_LINES = 40


class StartupError(Exception):
    """The stack could not start: what failed, why, and what to do."""

    def __init__(self, process: str, cause: str, remedy: str, tail: str = "") -> None:
        lines = [f"{process}: {cause}"]
        if tail:
            lines += [f"--- the last lines of {process}'s log", tail.rstrip(), "---"]
        super().__init__("\n".join([*lines, f"What to do: {remedy}"]))


RESET = "if its data directory is damaged, start anew with `backend reset` (it deletes all data)"
_ASK = "the log above says more; `backend logs NAME` shows all of it"
_INOTIFY = "too many files are watched: stop other stacks, or raise it with `sysctl fs.inotify.max_user_instances=512`"
_REMEDIES = {"postgres": RESET, "valkey": RESET, "valkey-cache": RESET}


def remedy_for(process: str, tail: str) -> str:
    """What to do about a process that did not start, by the last lines of its log."""
    return _INOTIFY if "inotify" in tail else _REMEDIES.get(process, _ASK)


def explained(error: BaseException) -> str:
    """A start's failure, or several, as `up` shows them."""
    if isinstance(error, BaseExceptionGroup):
        return "\n\n".join(map(explained, error.exceptions))
    if isinstance(error, StartupError):
        return str(error)
    return f"backend: {type(error).__name__}: {error}\nWhat to do: see the log above"


def tail_of(log: Path, begins: int) -> str:
    """The last lines of a log, of those after its first `begins` bytes."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        # One that has been shortened meanwhile has only newer lines.
        file.seek(begins if begins <= log.stat().st_size else 0)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-_TAIL_LINES:])
