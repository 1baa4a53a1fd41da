"""What runs, as the supervisor writes it and everybody else reads it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field

import psutil

from devstack.layout import Layout

# The exit status of a supervisor that found another one at work on its data directory, and did nothing.
ANOTHER_RUNS = 4
# Creation times are counted from the boot, whose time the kernel says in whole seconds, by a clock that is put right
# now and then: of one process they differ by a second or two. Another with the same pid is minutes younger.
_CLOCK_SECONDS = 5.0


@dataclass(slots=True)
class ProcessState:
    """One process of the stack."""

    name: str
    # waiting, starting, ready, unhealthy, restarting, stopping, stopped
    state: str = "waiting"
    pid: int | None = None
    # The process's creation time: a pid alone may by now be somebody else's.
    created: float | None = None
    # The signal that stops it cleanly.
    stop_signal: int = 15
    restarts: int = 0
    # What its probes found that fails or works less well, by check; asked for by `status` alone.
    found: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class StackState:
    """The whole stack."""

    supervisor_pid: int
    supervisor_created: float
    port_offset: int
    ready: bool = False
    # Whether it has been asked to end, and does.
    stopping: bool = False
    error: str = ""
    endpoints: dict[str, str] = field(default_factory=dict)
    processes: list[ProcessState] = field(default_factory=list)
    demo: dict[str, dict[str, str]] = field(default_factory=dict)
    # Whether what there is to try is not all there yet; the stack is ready without it.
    demo_loading: bool = False
    # How it was started: the fields of Options.
    options: dict[str, object] = field(default_factory=dict)

    def write(self, layout: Layout) -> None:
        """Replace the state file; a reader sees the old or the new one, whole."""
        temporary = layout.state_file.with_suffix(".new")
        temporary.write_text(self._text(), encoding="utf-8")
        # The demo accounts' passwords are in it.
        temporary.chmod(0o600)
        temporary.replace(layout.state_file)

    def write_if_possible(self, layout: Layout) -> None:
        """As `write`; a full disk keeps nobody from what else is to be done, and `upkeep.keep_state` makes up for it."""
        with contextlib.suppress(OSError):
            self.write(layout)

    def is_written(self, layout: Layout) -> bool:
        """Whether the file says what is so."""
        try:
            return layout.state_file.read_text(encoding="utf-8") == self._text()
        except OSError:
            return False

    def _text(self) -> str:
        return json.dumps(asdict(self), indent=2)


def read(layout: Layout) -> StackState | None:
    """The last written state, or None when the stack has never run here."""
    try:
        raw = json.loads(layout.state_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    processes = [ProcessState(**process) for process in raw.pop("processes")]
    return StackState(**raw, processes=processes)


def is_running(state: StackState | None) -> bool:
    """Whether the supervisor that wrote this state is still there."""
    return state is not None and alive(state.supervisor_pid, state.supervisor_created)


def alive(pid: int | None, created: float | None) -> bool:
    """Whether this very process, not another with its pid, is running."""
    if pid is None or created is None:
        return False
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < _CLOCK_SECONDS and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
