"""Keeps one stack running: starts its processes in dependency order, restarts what crashes or hangs, stops all cleanly.

`python -m devstack.supervisor` runs in the background for `backend up`. Its standard output is the progress that
`up` shows; state.json says what runs. Stopping is SIGTERM.

What takes long to import (certificates, templates, contracts) is imported while PostgreSQL starts; what nothing waits
for (the demo data) is loaded by a process of its own, once the stack is ready.
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
import sys
import time
from collections.abc import Coroutine
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from mesh import migrations
from mesh.topology import BROKER, CONSOLE, MAILBOX, SERVICES, VALKEY_SERVERS, Row, Service, levels, row, service_of

from devstack import errands, ports, postgres, privileges, secrets, sockets, specs, state, upkeep
from devstack.failures import StartupError, causes, explained, not_named, of_process
from devstack.layout import Layout
from devstack.options import Options
from devstack.processes import Processes, base_environment, say
from devstack.state import ProcessState, StackState
from devstack.steps import Step, take

if TYPE_CHECKING:
    from mesh.certificates import Certificates

_DEMO_SECONDS = 120.0
# Of failures, beside the names of processes: the services and their table.
_TABLE = "services"


class Supervisor:
    """One stack."""

    def __init__(self, layout: Layout, options: Options, owner: int | None = None) -> None:
        me = psutil.Process()
        self._layout = layout
        self._options = options
        self._owner = owner
        endpoints = layout.endpoints(options.every_process)
        names = ("postgres", *VALKEY_SERVERS, BROKER, CONSOLE, MAILBOX, *options.every_process)
        self._state = StackState(
            me.pid,
            me.create_time(),
            layout.port_offset,
            endpoints=endpoints,
            options=asdict(options),
            processes=[ProcessState(name) for name in names],
        )
        self._processes = Processes(layout, self._state, options.liveness_seconds)
        self._rendering = asyncio.Lock()
        self._background: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Start, watch, and stop again when asked; 1 when the start failed, with nothing left running."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stopping.set)
        self._layout.logs.mkdir(parents=True, exist_ok=True)
        # From here on, whoever else wants to start this stack can see that it is being started.
        self._state.write(self._layout)
        started = time.perf_counter()
        starting = asyncio.create_task(self._start())
        self._in_background(upkeep.bound_logs(self._layout))
        self._in_background(upkeep.keep_state(self._state, self._layout))
        if self._owner is not None:
            self._in_background(upkeep.until_gone(self._owner, self._stopping))
        stop = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)
        failure = ""
        if not starting.done():
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
        elif error := starting.exception():
            failure = self._without_secrets(explained(error) + await self._others_to_come(error))
        if not failure and not self._stopping.is_set():
            self._state.ready = True
            self._write_state()
            say("stack", f"ready in {time.perf_counter() - started:.1f} s")
            if self._options.demo:
                self._in_background(self._load_demo())
            await stop
        stop.cancel()
        await self._stop_all()
        self._state.error = failure
        self._write_state()
        if failure:
            say("stack", "failed", "error")
        return 1 if failure else 0

    async def _others_to_come(self, error: BaseException) -> str:
        """What would end the next starts, after one that a service has ended: this is said once, and not a start each."""
        failed = {service_of(one.process) for one in causes(error) if isinstance(one, StartupError)}
        if not failed & {_TABLE, *(service.name for service in SERVICES)}:
            return ""
        status, output = await errands.run(
            self._command("devstack.preflight"),
            environment=base_environment(),
            setup=privileges.die_with_parent(signal.SIGKILL),
        )
        others = not_named(output.splitlines(), error) if status else []
        if not others:
            return ""
        remedy = "mend them as well; `make lint` names them without a start"
        text = explained(
            StartupError(_TABLE, "\n".join(["besides, these would end the next starts:", *others]), remedy)
        )
        return f"\n\n{text}"

    async def _start(self) -> None:
        layout, options = self._layout, self._options
        self._check_ports()
        made = secrets.load_or_create(layout.secrets)
        if options.demo:
            self._state.demo, self._state.demo_loading = made.demo_accounts(), True
        sockets.make_directory(layout)
        self._write_state()
        await take(self.steps(made))

    def steps(self, made: secrets.Secrets) -> dict[str, Step]:
        """All that a start does, and what of it needs what."""
        layout, options = self._layout, self._options
        cut_off = secrets.rotation_journal(layout.secrets).exists()
        return {
            "identities": Step(self._identify),
            "postgres": Step(partial(self._start_database, made)),
            "passwords": Step(self._settle_passwords, ("postgres", *VALKEY_SERVERS) if cut_off else ()),
            "migrations": Step(self._migrate, ("postgres", "passwords")),
            BROKER: Step(partial(self._processes.start, specs.events(layout)), ("identities",)),
            "streams": Step(self._apply_streams, (BROKER,)),
            CONSOLE: Step(partial(self._processes.start, specs.console(layout))),
            MAILBOX: Step(partial(self._processes.start, specs.mailbox(layout))),
            **{
                server: Step(partial(self._processes.start, specs.memory(server, layout, made, options)))
                for server in VALKEY_SERVERS
            },
            **{
                name: Step(
                    partial(self._start_hosted, name, made),
                    ("identities", "passwords", *_needs(row(service_of(name)))),
                )
                for name in options.every_process
            },
        }

    async def _identify(self) -> None:
        """Certificates and keys, in a thread: PostgreSQL and Valkey start meanwhile."""
        from mesh.checks import TableError

        try:
            certificates = await asyncio.to_thread(self._make_identities)
        except TableError as error:
            raise StartupError(_TABLE, str(error), "mend the rows that the lines name, then start again") from error
        self._in_background(upkeep.renew_certificates(self._layout, certificates, say))
        self._in_background(upkeep.retire_keys(self._layout, say))
        self._in_background(upkeep.renew_broker(self._layout, self._state, say))

    def _make_identities(self) -> Certificates:
        from mesh.certificates import Certificates

        from devstack import audit, keys, proxies

        life = timedelta(seconds=self._options.certificate_seconds)
        certificates = Certificates(self._layout.pki, self._layout.certificates, life)
        with audit.replacing_certificates(self._layout, certificates, audit.SUPERVISOR):
            certificates.ensure()
        keys.ensure(self._layout)
        proxies.prepare(self._layout, self._options)
        return certificates

    async def _start_database(self, made: secrets.Secrets) -> None:
        if not postgres.directory(self._layout).exists():
            say("postgres", "making its data directory")
        try:
            await postgres.initialize(self._layout, made)
        except RuntimeError as error:
            raise of_process("postgres", "initdb failed", str(error)) from error
        if (found := postgres.version_of(self._layout)) != postgres.VERSION:
            raise StartupError(
                "postgres",
                f"its data were written by PostgreSQL {found}, and this is {postgres.VERSION}",
                f"dump them with PostgreSQL {found} and load them here (pg_dump, pg_restore), or choose another --data-dir",
            )
        await self._processes.start(specs.database(self._layout))

    async def _settle_passwords(self) -> None:
        """What services read their passwords from; a rotation that was cut off is finished first."""
        if secrets.rotation_journal(self._layout.secrets).exists():
            from devstack import rotation

            await rotation.finish(self._layout, self._options)
        secrets.write_passwords(self._layout.secrets, secrets.load_or_create(self._layout.secrets))

    async def _migrate(self) -> None:
        made = secrets.load_or_create(self._layout.secrets)
        await postgres.prepare(self._layout, made)
        try:
            await postgres.migrate(self._layout, made, partial(say, "migrations"))
        except migrations.MigrationError as error:
            raise StartupError(
                "migrations", str(error), "mend the migration and start again; what it has begun is undone"
            ) from error
        say("migrations", "applied")

    async def _apply_streams(self) -> None:
        from chassis.events.publisher import BrokerUnavailable

        from devstack import broker

        try:
            done = await broker.apply_streams(self._layout)
        except BrokerUnavailable as error:
            remedy = "`backend logs nats` has what the broker says of it; start again"
            raise StartupError("streams", str(error), remedy) from error
        say("streams", ", ".join(done) or "as they are declared")

    async def _start_hosted(self, name: str, made: secrets.Secrets) -> None:
        from devstack import proxies, services

        # One after the other: two threads would only keep each other from the first that could start.
        async with self._rendering:
            configuration = await asyncio.to_thread(proxies.render_own, self._layout, self._options, name)
        environment = services.environment(service_of(name), self._layout, made, self._options)
        ops = self._state.endpoints[f"{name}_ops"]
        await self._processes.start(specs.hosted(name, configuration, ops, environment))

    async def _load_demo(self) -> None:
        """Demo data are a convenience: the platform serves without them, and the next start goes on where this one stopped."""
        from devstack import audit

        layout = self._layout
        if not layout.demo_marker.exists():
            say("demo", "loading products, accounts and orders")
            command = self._command("devstack.demo")
            began, setup = time.perf_counter(), privileges.die_with_parent(signal.SIGKILL)
            try:
                async with asyncio.timeout(_DEMO_SECONDS):
                    status, output = await errands.run(command, environment=base_environment(), setup=setup)
            except (OSError, TimeoutError) as error:
                status, output = 1, str(error) or f"not done within {_DEMO_SECONDS:.0f} s"
            said = audit.kept(layout, output)
            if status == 0:
                say("demo", f"loaded in {time.perf_counter() - began:.1f} s")
            else:
                cause = said.strip().rpartition("\n")[2] or f"ended with status {status}"
                say("demo", f"not complete ({self._without_secrets(cause)}); the next `backend up` goes on", "warning")
        self._state.demo_loading = False
        self._write_state()

    def _command(self, module: str) -> list[str]:
        """A program that is told of this stack."""
        return [
            sys.executable, "-m", module, "--data-dir", str(self._layout.data_dir),
            "--port-offset", str(self._layout.port_offset), "--options", json.dumps(asdict(self._options)),
        ]  # fmt: skip

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        self._background.append(asyncio.create_task(work))

    def _check_ports(self) -> None:
        taken = next((port for port in ports.of_stack(self._layout, self._options) if not port.is_free()), None)
        if taken is None:
            return
        free = ports.next_free_offset(self._layout, self._options)
        others = "" if free is None else f", or start on other ports: `backend up --port-offset {free}`"
        udp = " (UDP)" if taken.kind == "udp" else ""
        raise StartupError(
            taken.name, f"port {taken.number}{udp} is in use{taken.owner()}", f"stop what uses it{others}"
        )

    async def _stop_all(self) -> None:
        self._stopping.set()
        self._state.ready, self._state.stopping = False, True
        self._write_state()
        self._processes.end_monitoring()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        # Against the direction of the requests: whoever calls stops before whoever is called.
        for group in (*reversed(levels()), (*VALKEY_SERVERS, BROKER, MAILBOX, "postgres", CONSOLE)):
            names = [name for service in group for name in self._options.processes(service)]
            await asyncio.gather(*map(self._processes.stop, names))
        shutil.rmtree(self._layout.sockets, ignore_errors=True)

    def _without_secrets(self, text: str) -> str:
        """What a screen may show: Valkey for one repeats the line of its configuration that it does not like."""
        file = secrets.file(self._layout.secrets)
        return secrets.load_or_create(self._layout.secrets).hidden_in(text) if file.exists() else text

    def _write_state(self) -> None:
        self._state.write_if_possible(self._layout)


def _needs(entry: Row) -> tuple[str, ...]:
    """What a process needs of what starts beside it; other services are waited for by whoever calls them."""
    if not isinstance(entry, Service):
        return ()
    memory = () if entry.valkey is None else (entry.valkey.server,)
    return memory if entry.database is None else (*memory, "migrations")


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
    try:
        layout.make()
        with (layout.data_dir / "lock").open("w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return state.ANOTHER_RUNS
            end_leftovers(layout)
            return asyncio.run(Supervisor(layout, Options(**arguments.options), arguments.die_with).run())
    except OSError as error:
        # Not even the state could be written: the log is all that `up` has to show.
        print(explained(error), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
