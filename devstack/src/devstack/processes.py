"""The processes of one stack: each started once what it needs is there, started again when it crashes or hangs, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from devstack.failures import StartupError, lines_since, of_process
from devstack.layout import Layout
from devstack.state import ProcessState, StackState

START_SECONDS = 60.0
_PROBE_SECONDS = 0.05
# Of a process that serves, in the liveness time.
_LIVENESS_PROBES = 6
_SPAWN_RETRY_SECONDS = 2.0
_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
# A process that ran this long did start: the next crash begins the backoff anew.
_STABLE_SECONDS = 30.0
# What a child may know of the shell that started the stack: where programs and this user's files are. Anything else (a
# proxy, a LOG_LEVEL, a locale without UTF-8) would configure a service behind its operator's back.
# `make coverage` measures every process of the stacks of its tests.
_OF_THE_SHELL = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "TZ",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "COVERAGE_PROCESS_START",
)


@dataclass(frozen=True, slots=True)
class Spec:
    """How one process is run."""

    name: str
    command: list[str]
    waits_for: str
    is_ready: Callable[[], Awaitable[bool]]
    # Whether it answers at all; the same question as `is_ready` when there is no other.
    is_alive: Callable[[], Awaitable[bool]] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    # The working directory; the data directory when there is none.
    cwd: Path | None = None
    before: Callable[[], Awaitable[None]] | None = None
    setup: Callable[[], None] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 25.0


class Processes:
    """What runs of a stack, as `state` tells everybody else."""

    def __init__(self, layout: Layout, state: StackState, liveness_seconds: float) -> None:
        self._layout = layout
        self._state = state
        self._liveness_seconds = liveness_seconds
        self._running: dict[str, tuple[Spec, asyncio.subprocess.Process]] = {}
        # Where the lines of this run begin in each log.
        self._log_begins: dict[str, int] = {}
        self._monitors: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self, spec: Spec) -> None:
        """Start a process and return once it is ready; from then on it is started again whenever it ends.

        Raises:
            StartupError: it ended, or was not ready in time.
        """
        entry = self._entry(spec.name)
        log = self._layout.logs / f"{spec.name}.log"
        self._log_begins[spec.name] = log.stat().st_size if log.exists() else 0
        process = await self._spawn(spec, entry)
        give_up = time.monotonic() + START_SECONDS
        while not await spec.is_ready():
            if process.returncode is not None:
                raise self._failure(spec.name, f"ended with status {process.returncode} before it was ready")
            if time.monotonic() > give_up:
                raise self._failure(
                    spec.name, f"was not ready within {START_SECONDS:.0f} s (waited for: {spec.waits_for})"
                )
            await asyncio.sleep(_PROBE_SECONDS)
        self._note(entry, "ready")
        say(spec.name, "ready")
        self._monitors.append(asyncio.create_task(self._monitor(spec, entry, process)))

    def end_monitoring(self) -> None:
        """From now on, what ends stays ended."""
        self._stopping = True
        for monitor in self._monitors:
            monitor.cancel()

    async def stop(self, name: str) -> None:
        """Stop one process cleanly, or kill it when that takes too long; nothing, when it has not been started."""
        if name not in self._running:
            return
        (spec, process), entry = self._running[name], self._entry(name)
        self._note(entry, "stopping")
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(spec.stop_signal)
            try:
                await asyncio.wait_for(process.wait(), spec.stop_seconds)
            except TimeoutError:
                say(name, "did not stop; killed", "warning")
                process.kill()
                await process.wait()
        entry.pid, entry.created = None, None
        self._note(entry, "stopped")
        say(name, "stopped")

    def _failure(self, name: str, how: str) -> StartupError:
        return of_process(name, how, lines_since(self._layout.logs / f"{name}.log", self._log_begins[name]))

    async def _spawn(self, spec: Spec, entry: ProcessState) -> asyncio.subprocess.Process:
        if spec.before is not None:
            await spec.before()
        log_path = self._layout.logs / f"{spec.name}.log"
        with log_path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *spec.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=base_environment() | dict(spec.environment),
                cwd=spec.cwd or self._layout.data_dir,
                preexec_fn=spec.setup,
                # Ctrl-C in a terminal is for the command line, not for every process of the stack.
                start_new_session=True,
            )
        self._running[spec.name] = spec, process
        entry.pid, entry.stop_signal = process.pid, spec.stop_signal
        with contextlib.suppress(psutil.NoSuchProcess):
            entry.created = psutil.Process(process.pid).create_time()
        self._note(entry, "starting")
        say(spec.name, f"starting; waits for: {spec.waits_for}")
        return process

    async def _spawn_again(self, spec: Spec, entry: ProcessState) -> asyncio.subprocess.Process:
        """Until it can be: a disk, a process table or a memory that is full is not so for ever."""
        while True:
            try:
                return await self._spawn(spec, entry)
            except OSError as error:
                say(spec.name, f"cannot be started ({error}); tried again in {_SPAWN_RETRY_SECONDS:g} s", "warning")
                await asyncio.sleep(_SPAWN_RETRY_SECONDS)

    async def _monitor(self, spec: Spec, entry: ProcessState, process: asyncio.subprocess.Process) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            watching = asyncio.create_task(self._end_when_hung(spec, entry, process))
            status = await process.wait()
            watching.cancel()
            hung = watching.done() and not watching.cancelled()
            if self._stopping:
                return
            entry.restarts += 1
            self._note(entry, "restarting")
            if status == 0:
                say(spec.name, "stopped; starting again")
            else:
                # How long it served; what it then hung for does not count.
                served = time.monotonic() - began - (self._liveness_seconds if hung else 0)
                failures = 0 if served > _STABLE_SECONDS else failures
                delay = _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)]
                failures += 1
                what = "hung and was killed" if hung else f"crashed with status {status}"
                say(spec.name, f"{what}; starting again in {delay} s", "warning")
                await asyncio.sleep(delay)
            process = await self._spawn_again(spec, entry)
            give_up = time.monotonic() + START_SECONDS
            while process.returncode is None and not await spec.is_ready():
                if time.monotonic() > give_up and not await (spec.is_alive or spec.is_ready)():
                    say(spec.name, f"does not answer {START_SECONDS:.0f} s after its start", "warning")
                    _kill(process.pid)
                    await process.wait()
                await asyncio.sleep(_PROBE_SECONDS)
            if process.returncode is None:
                self._note(entry, "ready")
                say(spec.name, "ready")

    async def _end_when_hung(self, spec: Spec, entry: ProcessState, process: asyncio.subprocess.Process) -> None:
        """Kill a process that has not answered for the liveness time; until then only say so."""
        is_alive, patience = spec.is_alive or spec.is_ready, self._liveness_seconds
        hanging_since: float | None = None
        while True:
            await asyncio.sleep(patience / _LIVENESS_PROBES)
            asked = time.monotonic()
            if await is_alive():
                if hanging_since is not None:
                    say(spec.name, "answers again")
                    self._note(entry, "ready")
                hanging_since = None
                continue
            if hanging_since is None:
                hanging_since = asked
                say(spec.name, f"does not answer; will be killed after {patience:g} s", "warning")
                self._note(entry, "unhealthy")
            elif asked - hanging_since >= patience:
                _kill(process.pid)
                return

    def _note(self, entry: ProcessState, what: str) -> None:
        entry.state = what
        self._state.write_if_possible(self._layout)

    def _entry(self, name: str) -> ProcessState:
        return next(entry for entry in self._state.processes if entry.name == name)


def _kill(pid: int) -> None:
    """A process and what it started: children of PostgreSQL that hang, too, would keep its memory from the next."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def base_environment() -> dict[str, str]:
    """What every process of a stack is started with."""
    locale = "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8"
    kept = {name: os.environ[name] for name in _OF_THE_SHELL if name in os.environ}
    return kept | {"LC_ALL": locale, "PYTHONUTF8": "1"}


def say(process: str, what: str, level: str = "info") -> None:
    """One line of the supervisor's log, which `up` shows as progress; lost when the disk is full."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"time": moment, "level": level, "service": "supervisor", "event": f"{process}: {what}"}
    with contextlib.suppress(OSError):
        print(json.dumps(line), flush=True)
