"""Keeps one stack running: starts its processes in dependency order, restarts what crashes or hangs, stops all cleanly.

`python -m devstack.supervisor` runs in the background for `backend up`. Its standard output is the progress that
`up` shows; state.json says what runs. Stopping is SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psutil

from devstack import demo, keys, migrations, postgres, privileges, proxies, secrets, services, state, upkeep, valkey
from devstack.certificates import Certificates
from devstack.failures import RESET, StartupError, owner_of, remedy_for, tail_of
from devstack.layout import Layout
from devstack.options import Options
from devstack.state import ProcessState, StackState

START_SECONDS = 60.0
_PROBE_SECONDS = 0.05
# Of a process that serves, in the liveness time.
_LIVENESS_PROBES = 6
_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
# A process that ran this long did start: the next crash begins the backoff anew.
_STABLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Spec:
    """How one process is run."""

    name: str
    command: list[str]
    waits_for: str
    is_ready: Callable[[], Awaitable[bool]]
    # Whether it answers at all; the same question as `is_ready` when there is no other.
    is_alive: Callable[[], Awaitable[bool]] | None = None
    after: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    # The working directory; the data directory when there is none.
    cwd: Path | None = None
    before: Callable[[], Awaitable[None]] | None = None
    setup: Callable[[], None] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 25.0


class Supervisor:
    """One stack."""

    def __init__(self, layout: Layout, options: Options, owner: int | None = None) -> None:
        me = psutil.Process()
        self._layout = layout
        self._options = options
        self._owner = owner
        endpoints = layout.endpoints(proxies.process_names(options))
        self._state = StackState(
            me.pid, me.create_time(), layout.port_offset, endpoints=endpoints, options=asdict(options)
        )
        life = timedelta(seconds=options.certificate_seconds)
        self._certificates = Certificates(layout.pki, layout.certificates, life)
        self._specs: dict[str, Spec] = {}
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._monitors: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Start, watch, and stop again when asked; 1 when the start failed, with nothing left running."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._layout.logs.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        starting = asyncio.create_task(self._start())
        self._monitors.append(asyncio.create_task(upkeep.bound_logs(self._layout)))
        if self._owner is not None:
            self._monitors.append(asyncio.create_task(upkeep.until_gone(self._owner, self._stopping)))
        stop = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)
        failure = ""
        if not starting.done():
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
        elif error := starting.exception():
            known = isinstance(error, StartupError)
            failure = (
                str(error) if known else f"backend: {type(error).__name__}: {error}\nWhat to do: see the log above"
            )
        if not failure and not self._stopping.is_set():
            self._state.ready = True
            self._write_state()
            _say("stack", f"ready in {time.perf_counter() - started:.1f} s")
            await stop
        stop.cancel()
        await self._stop_all()
        self._state.error = failure
        self._write_state()
        if failure:
            _say("stack", "failed", "error")
        return 1 if failure else 0

    async def _start(self) -> None:
        layout = self._layout
        self._check_ports()
        made = secrets.load_or_create(layout.secrets)
        services.make_socket_directory(layout)
        await asyncio.to_thread(self._certificates.ensure)
        self._monitors.append(asyncio.create_task(upkeep.renew_certificates(self._certificates, _say)))
        keys.ensure(layout)
        self._monitors.append(asyncio.create_task(upkeep.retire_keys(layout, _say)))
        configurations = proxies.render(layout, self._options)
        self._specs = {spec.name: spec for spec in self._make_specs(made, configurations)}
        self._state.processes = [ProcessState(n, stop_signal=s.stop_signal) for n, s in self._specs.items()]
        self._write_state()
        _say("postgres", "making its data directory" if not postgres.directory(layout).exists() else "starting")
        try:
            await postgres.initialize(layout, made)
        except RuntimeError as error:
            raise StartupError("postgres", "initdb failed", RESET, str(error)) from error
        await asyncio.gather(*map(self._start_one, ("postgres", *valkey.SERVERS)))
        await postgres.prepare(layout, made)
        try:
            await postgres.migrate(layout, made, partial(_say, "migrations"))
        except migrations.MigrationError as error:
            raise StartupError(
                "migrations", str(error), "mend the migration, or start anew with `backend reset`"
            ) from error
        _say("migrations", "applied")
        names = [name for name in configurations if name != "edge"]
        outcomes = await asyncio.gather(*map(self._start_one, names), return_exceptions=True)
        if failures := [outcome for outcome in outcomes if isinstance(outcome, BaseException)]:
            # The one that says most; what all have in common is in each.
            raise max(failures, key=lambda failure: len(str(failure)))
        await self._start_one("edge")
        if self._options.demo:
            self._state.demo = demo.accounts(made)
            await self._load_demo(made)

    async def _load_demo(self, made: secrets.Secrets) -> None:
        """Demo data are a convenience: the platform serves without them, and the next start goes on where this one stopped."""
        if demo.is_loaded(self._layout):
            return
        _say("demo", "loading products, accounts and orders")
        try:
            await demo.load(self._layout, made)
        except Exception as error:
            _say("demo", f"not complete ({type(error).__name__}: {error}); the next `backend up` goes on", "warning")

    def _make_specs(self, made: secrets.Secrets, configurations: Mapping[str, Path]) -> list[Spec]:
        layout = self._layout
        backing = [
            Spec(
                name="postgres",
                command=postgres.command(layout),
                waits_for="accepts connections",
                is_ready=lambda: postgres.accepts_connections(layout, made),
                before=lambda: postgres.remove_stale_lock(layout),
                cwd=postgres.directory(layout),
                setup=privileges.child_setup([postgres.BINARIES / "postgres"]),
                stop_signal=signal.SIGINT,
            ),
            *(
                Spec(
                    name=server,
                    command=valkey.command(server, layout, made, self._options),
                    waits_for="answers PING",
                    is_ready=partial(services.valkey_answers, layout, made, server),
                    setup=privileges.die_with_parent(signal.SIGTERM),
                )
                for server in valkey.SERVERS
            ),
        ]
        hosted = [
            Spec(
                name=name,
                command=[sys.executable, "-m", "chassis.launch", str(configuration)],
                waits_for=f"{self._state.endpoints[f'{name}_ops']}/healthz/ready",
                is_ready=_probe(f"{self._state.endpoints[f'{name}_ops']}/healthz/ready"),
                is_alive=_probe(f"{self._state.endpoints[f'{name}_ops']}/healthz/live"),
                environment=services.environment(name.partition("-")[0], layout, made, self._options),
                setup=privileges.die_with_parent(signal.SIGTERM),
            )
            for name, configuration in configurations.items()
        ]
        return backing + hosted

    def _check_ports(self) -> None:
        for name in ("public", "public_tls", *self._listening()):
            port = self._layout.port(name)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    remedy = "stop what uses it, or choose other ports with `backend up --port-offset N`"
                    raise StartupError(name, f"port {port} is in use{owner_of(port)}", remedy) from error

    def _listening(self) -> list[str]:
        names = proxies.process_names(self._options)
        return [name for name in names if name != "edge"] + [f"{name}_ops" for name in names]

    async def _start_one(self, name: str) -> None:
        spec, entry = self._specs[name], self._entry(name)
        process = await self._spawn(spec, entry)
        give_up = time.monotonic() + START_SECONDS
        while not await spec.is_ready():
            if process.returncode is not None:
                cause = f"ended with status {process.returncode} before it was ready"
                raise self._failure(name, cause)
            if time.monotonic() > give_up:
                cause = f"was not ready within {START_SECONDS:.0f} s (waited for: {spec.waits_for})"
                raise self._failure(name, cause)
            await asyncio.sleep(_PROBE_SECONDS)
        entry.state = "ready"
        self._write_state()
        _say(name, "ready")
        self._monitors.append(asyncio.create_task(self._monitor(spec, entry, process)))

    def _failure(self, name: str, cause: str) -> StartupError:
        tail = tail_of(self._layout.logs / f"{name}.log")
        return StartupError(name, cause, remedy_for(name, tail), tail)

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
                env=services.base_environment() | dict(spec.environment),
                cwd=spec.cwd or self._layout.data_dir,
                preexec_fn=spec.setup,
                # Ctrl-C in a terminal is for the command line, not for every process of the stack.
                start_new_session=True,
            )
        self._running[spec.name] = process
        entry.state, entry.pid = "starting", process.pid
        with contextlib.suppress(psutil.NoSuchProcess):
            entry.created = psutil.Process(process.pid).create_time()
        self._write_state()
        _say(spec.name, f"starting; waits for: {spec.waits_for}")
        return process

    async def _monitor(self, spec: Spec, entry: ProcessState, process: asyncio.subprocess.Process) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            watching = asyncio.create_task(self._end_when_hung(spec, entry, process))
            status = await process.wait()
            watching.cancel()
            hung = watching.done() and not watching.cancelled()
            if self._stopping.is_set():
                return
            entry.state, entry.restarts = "restarting", entry.restarts + 1
            self._write_state()
            if status == 0:
                _say(spec.name, "stopped; starting again")
            else:
                # How long it served; what it then hung for does not count.
                served = time.monotonic() - began - (self._options.liveness_seconds if hung else 0)
                failures = 0 if served > _STABLE_SECONDS else failures
                delay = _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)]
                failures += 1
                what = "hung and was killed" if hung else f"crashed with status {status}"
                _say(spec.name, f"{what}; starting again in {delay} s", "warning")
                await asyncio.sleep(delay)
            process = await self._spawn(spec, entry)
            give_up = time.monotonic() + START_SECONDS
            while process.returncode is None and not await spec.is_ready():
                if time.monotonic() > give_up and not await (spec.is_alive or spec.is_ready)():
                    _say(spec.name, f"does not answer {START_SECONDS:.0f} s after its start", "warning")
                    _kill(process.pid)
                    await process.wait()
                await asyncio.sleep(_PROBE_SECONDS)
            if process.returncode is None:
                entry.state = "ready"
                self._write_state()
                _say(spec.name, "ready")

    async def _end_when_hung(self, spec: Spec, entry: ProcessState, process: asyncio.subprocess.Process) -> None:
        """Kill a process that has not answered for the liveness time; until then only say so."""
        is_alive, patience = spec.is_alive or spec.is_ready, self._options.liveness_seconds
        hanging_since: float | None = None
        while True:
            await asyncio.sleep(patience / _LIVENESS_PROBES)
            asked = time.monotonic()
            if await is_alive():
                if hanging_since is not None:
                    _say(spec.name, "answers again")
                    self._note(entry, "ready")
                hanging_since = None
                continue
            if hanging_since is None:
                hanging_since = asked
                _say(spec.name, f"does not answer; will be killed after {patience:g} s", "warning")
                self._note(entry, "unhealthy")
            elif asked - hanging_since >= patience:
                _kill(process.pid)
                return

    def _note(self, entry: ProcessState, what: str) -> None:
        entry.state = what
        self._write_state()

    async def _stop_all(self) -> None:
        self._stopping.set()
        for monitor in self._monitors:
            monitor.cancel()
        # Against the direction of the requests: whoever calls stops before whoever is called.
        for group in (("edge",), ("bff",), ("user", "order", "limiter"), (*valkey.SERVERS, "postgres")):
            names = [name for service in group for name in self._options.processes(service)]
            await asyncio.gather(*(self._stop_one(name) for name in names if name in self._running))
        shutil.rmtree(self._layout.sockets, ignore_errors=True)

    async def _stop_one(self, name: str) -> None:
        spec, entry, process = self._specs[name], self._entry(name), self._running[name]
        entry.state = "stopping"
        self._write_state()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(spec.stop_signal)
            try:
                await asyncio.wait_for(process.wait(), spec.stop_seconds)
            except TimeoutError:
                _say(name, "did not stop; killed", "warning")
                process.kill()
                await process.wait()
        entry.state, entry.pid, entry.created = "stopped", None, None
        self._write_state()
        _say(name, "stopped")

    def _entry(self, name: str) -> ProcessState:
        return next(entry for entry in self._state.processes if entry.name == name)

    def _write_state(self) -> None:
        self._state.write(self._layout)


def _kill(pid: int) -> None:
    """A process and what it started: children of PostgreSQL that hang, too, would keep its memory from the next."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def _probe(url: str) -> Callable[[], Awaitable[bool]]:
    async def is_ready() -> bool:
        return await services.answers_ok(url)

    return is_ready


def _say(process: str, what: str, level: str = "info") -> None:
    """One line of the supervisor's log, which `up` shows as progress."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"time": moment, "level": level, "service": "supervisor", "event": f"{process}: {what}"}
    print(json.dumps(line), flush=True)


def end_leftovers(layout: Layout) -> None:
    """End processes of a supervisor that was killed: they have been asked to stop by its death, so wait first."""
    known = state.read(layout)
    if known is None:
        return
    give_up = time.monotonic() + 20
    left = [entry for entry in known.processes if state.alive(entry.pid, entry.created)]
    while left and time.monotonic() < give_up:
        for entry in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(entry.pid or 0, entry.stop_signal)
        time.sleep(0.2)
        left = [entry for entry in left if state.alive(entry.pid, entry.created)]
    for entry in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(entry.pid or 0, signal.SIGKILL)


def main() -> int:
    """Run one stack until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port-offset", type=int, required=True)
    parser.add_argument("--options", type=json.loads, required=True)
    parser.add_argument("--die-with", type=int, help="stop when this process is gone")
    arguments = parser.parse_args()
    layout = Layout(arguments.data_dir, arguments.port_offset)
    # Passed on to every process: what they write is its owner's alone.
    os.umask(0o077)
    layout.make()
    with (layout.data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"another supervisor runs on {layout.data_dir}", file=sys.stderr)
            return 1
        end_leftovers(layout)
        return asyncio.run(Supervisor(layout, Options(**arguments.options), arguments.die_with).run())


if __name__ == "__main__":
    sys.exit(main())
