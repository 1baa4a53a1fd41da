"""The `backend` command: the stack's life here, everything else in a module of `commands` each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from ipaddress import ip_network
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer
from mesh.policies import parse_origins, parse_without
from mesh.topology import CONSOLE
from rich.table import Table

from devstack import state
from devstack.commands import (
    admins,
    certificates,
    database,
    debug,
    events,
    keys,
    log_level,
    logs,
    mails,
    new,
    secrets,
    trace,
)
from devstack.commands.stack import NOT_RUNNING, DataDir, console, errors, exists, is_foreign, running_or_exit
from devstack.failures import explained
from devstack.health import READY, Health
from devstack.layout import DEFAULT_DATA_DIR, HIGHEST_OFFSET, Layout
from devstack.logs import files, view
from devstack.logs.selection import Selection
from devstack.options import REPLICATED, Options, parse_endpoint, parse_replicas, parse_tracer
from devstack.state import StackState
from devstack.typed import PROGRAM, as_typed

app = typer.Typer(
    help="The whole platform on one machine: PostgreSQL, Valkey, Envoy and the services.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help: boxes cut the names of options short on a terminal of 80 columns.
    rich_markup_mode=None,
)
_STOP_SECONDS = 60.0
# What options take at most.
_YEAR_SECONDS = 365 * 86400
_TEBIBYTE_MIB = 1024 * 1024
# Of `status`: it runs, but not all of it is ready.
_NOT_READY = 4
# With less than this free, not even the cause of a failure can be written to a log.
_LEAST_FREE_BYTES = 1024 * 1024
_FULL = "The disk that has the data directory is full; make room, or choose another directory with --data-dir."
_FOREIGN = "{} has files, and none of a stack; nothing was {}. Is it the right --data-dir?"
_UNTOLD = "the stack has ended meanwhile; `backend logs supervisor` says why"
_POLL_SECONDS = 0.05
# How often a start that another one is a moment ahead of is tried again, until the other can be seen.
_RETRY_SECONDS = 0.2
# Options of `up` whose values the stack keeps under another name.
_KEPT_AS = {"cors_origin": "cors_origins", "trusted_proxy": "trusted_proxies"}
# Of this call, not of the stack.
_OF_THE_CALL = frozenset({"data_dir", "detach", "die_with"})


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"backend {version('backend-devstack')}")
        raise typer.Exit


@app.callback()
def every_command(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The whole platform on one machine: PostgreSQL, Valkey, Envoy and the services."""


@app.command()
def up(
    context: typer.Context,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    port_offset: Annotated[
        int,
        typer.Option(min=0, max=HIGHEST_OFFSET, metavar="N", help="Added to every port; two stacks run side by side."),
    ] = 0,
    detach: Annotated[bool, typer.Option("--detach", help="Return once it is ready and leave it running.")] = False,
    replicas: Annotated[
        list[str] | None, typer.Option(metavar="SERVICE=N", help=f"Processes of a service: {', '.join(REPLICATED)}.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="A web origin whose pages may call the API; repeatable."),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="A network whose X-Forwarded-For and X-Request-Id count; repeatable."),
    ] = None,
    https_only: Annotated[bool, typer.Option("--https-only", help="Plain HTTP only redirects to HTTPS.")] = False,
    certificate_seconds: Annotated[
        float,
        typer.Option(
            min=2, max=_YEAR_SECONDS, metavar="N", help="Life of the workload certificates; renewed at half of it."
        ),
    ] = 86400,
    rate_limit_scale: Annotated[
        float,
        typer.Option(
            min=0.01, max=1e6, metavar="N", help="Multiplies every rate limit of the contract (for load tests)."
        ),
    ] = 1.0,
    valkey_memory_mib: Annotated[
        int,
        typer.Option(
            min=4,
            max=_TEBIBYTE_MIB,
            metavar="N",
            help="Memory of the Valkey that keeps sessions and counts; when full, writes fail.",
        ),
    ] = 512,
    cache_memory_mib: Annotated[
        int,
        typer.Option(
            min=4,
            max=_TEBIBYTE_MIB,
            metavar="N",
            help="Memory of the Valkey that keeps copies; when full, old ones go.",
        ),
    ] = 256,
    liveness_seconds: Annotated[
        float,
        typer.Option(
            min=1,
            max=86400,
            metavar="N",
            help="A process that has not answered for so long is killed and started again.",
        ),
    ] = 30.0,
    trace_ratio: Annotated[
        float, typer.Option(min=0, max=1, metavar="N", help="The share of all requests that is traced.")
    ] = 0.1,
    otlp_endpoint: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="OTEL_EXPORTER_OTLP_ENDPOINT",
            show_envvar=False,
            help="Send spans to this OTLP/HTTP receiver instead of keeping them for `backend trace`.",
        ),
    ] = "",
    tracer: Annotated[
        str, typer.Option(metavar="lean|sdk", help="Who sends spans: the chassis, or OpenTelemetry's SDK.")
    ] = "lean",
    demo: Annotated[bool, typer.Option("--demo/--no-demo", help="Load data to try on the first start.")] = True,
    die_with: Annotated[
        int | None, typer.Option(metavar="PID", help="Stop the stack when this process is gone, however it ended.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(metavar="POLICY", help="Leave an Envoy policy out, to see what it is for.")
    ] = None,
) -> None:
    """Start the platform and wait until it is ready. Twice is harmless."""
    layout = Layout(data_dir.resolve(), port_offset)
    try:
        chosen = Options(
            replicas=parse_replicas(replicas or []),
            without=parse_without(without or []),
            certificate_seconds=certificate_seconds,
            rate_limit_scale=rate_limit_scale,
            cors_origins=parse_origins(cors_origin or []),
            trusted_proxies=tuple(str(ip_network(network)) for network in trusted_proxy or ()),
            https_only=https_only,
            valkey_memory_mib=valkey_memory_mib,
            cache_memory_mib=cache_memory_mib,
            liveness_seconds=liveness_seconds,
            demo=demo,
            trace_ratio=trace_ratio,
            otlp_endpoint=parse_endpoint(otlp_endpoint),
            tracer=parse_tracer(tracer),
        )
    except ValueError as error:
        console.print(str(error), style="red")
        raise typer.Exit(2) from None
    _end_like_ctrl_c()
    given = _given(context)
    if is_foreign(layout):
        console.print(_FOREIGN.format(layout.data_dir, "started"), style="red")
        raise typer.Exit(2)
    _wait_for_its_end(layout)
    made = _missing(layout.data_dir)
    progress = Progress(layout)
    owner = die_with if detach or die_with is not None else os.getpid()
    while (known := _running(layout)) is None and not _start(layout, chosen, owner, progress):
        time.sleep(_RETRY_SECONDS)
        _wait_for_its_end(layout)
        # The other one may have failed meanwhile, and have removed what both had made.
        made = _missing(layout.data_dir)
    joined = known is not None
    if known is not None:
        _refuse_other_options(known, chosen, port_offset, given, layout)
        layout = Layout(layout.data_dir, known.port_offset)
        console.print("already running" if known.ready else "already starting; this waits for it")
        with contextlib.suppress(KeyboardInterrupt):
            progress.show(lambda: _has_started_or_ended(layout))
    current = state.read(layout)
    if current is None or not current.ready or not state.is_running(current):
        said = (current.error if current else "") or _UNTOLD
        console.print(as_typed(said, layout.data_dir, _as_options(context, given)), style="red")
        if not layout.secrets.exists():
            # Refused before anything was made that somebody could miss.
            _remove(layout.data_dir, made)
        raise typer.Exit(1)
    _print_welcome(current, layout.data_dir)
    if current.demo_loading:
        console.print()
    if detach:
        progress.show(lambda: not _demo_is_loading(layout))
        _print_accounts(current)
        return
    end = "Ctrl-C ends this, the platform goes on" if joined else "Ctrl-C stops the platform"
    # A terminal that is gone cannot be written to any more.
    with contextlib.suppress(KeyboardInterrupt, OSError):
        progress.show(lambda: not _demo_is_loading(layout))
        _print_accounts(current)
        console.print(f"\nFollowing the logs; {end}.\n", style="dim")
        logs.follow_events(layout, Selection(), files.ends(layout.logs))
    if not joined:
        _stop(layout)


def _running(layout: Layout) -> StackState | None:
    current = state.read(layout)
    return current if state.is_running(current) else None


def _wait_for_its_end(layout: Layout) -> None:
    """What is being stopped is not joined."""
    current = _running(layout)
    if current is None or not current.stopping:
        return
    console.print("it is being stopped; this waits for its end, and starts it again")
    while state.is_running(current):
        time.sleep(_POLL_SECONDS)


def _has_started_or_ended(layout: Layout) -> bool:
    current = _running(layout)
    return current is None or current.ready


def _missing(data_dir: Path) -> list[Path]:
    """The directories that a start would make, the innermost first."""
    return [path for path in (data_dir, *data_dir.parents) if not path.exists()]


def _remove(data_dir: Path, made: list[Path]) -> None:
    if data_dir not in made:
        return
    shutil.rmtree(data_dir, ignore_errors=True)
    # A parent that somebody else has put something into meanwhile stays.
    with contextlib.suppress(OSError):
        for path in made[1:]:
            path.rmdir()


def _given(context: typer.Context) -> list[str]:
    """The parameters that were given on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def _as_options(context: typer.Context, given: list[str]) -> list[str]:
    """What was given, as it can be typed again; without what is not for another call."""
    typed = []
    for parameter in context.command.params:
        if parameter.name not in given or parameter.name in ("data_dir", "die_with"):
            continue
        value = context.params[parameter.name]
        if isinstance(value, bool):
            typed.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        else:
            values = value if isinstance(value, (list, tuple)) else [value]
            typed += [f"{parameter.opts[0]} {shlex.quote(str(one))}" for one in values]
    return typed


def _demo_is_loading(layout: Layout) -> bool:
    current = state.read(layout)
    return current is not None and current.demo_loading and state.is_running(current)


class Progress:
    """What the supervisor says from now on."""

    def __init__(self, layout: Layout) -> None:
        self._data_dir = layout.data_dir
        self._log = layout.logs / "supervisor.log"
        self._position = self._log.stat().st_size if self._log.exists() else 0

    def show(self, is_over: Callable[[], bool]) -> None:
        """Print it as it comes, until that is over."""
        while True:
            over = is_over()
            # A start that was refused leaves no log.
            with contextlib.suppress(FileNotFoundError), self._log.open("rb") as log:
                log.seek(self._position)
                # The last line may be one that is being written.
                for line in takewhile(lambda line: line.endswith(b"\n"), log):
                    self._position += len(line)
                    shown = view.progress(line.decode(errors="replace"))
                    console.print(as_typed(shown, self._data_dir))
            if over:
                return
            time.sleep(_POLL_SECONDS)


def _end_like_ctrl_c() -> None:
    """A closed terminal, a cancelled job and a process manager end this command as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Under nohup it stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def _refuse_other_options(
    running: StackState, chosen: Options, port_offset: int, given: list[str], layout: Layout
) -> None:
    """`up` joins whatever runs; the options that it was given have to be the running stack's.

    Raises:
        typer.Exit: 1, they are others.
    """
    wanted = json.loads(json.dumps(asdict(chosen)))
    wanted["port_offset"], kept = port_offset, {**running.options, "port_offset": running.port_offset}
    names = {name: _KEPT_AS.get(name, name) for name in given if name not in _OF_THE_CALL}
    if others := [name for name, field in names.items() if wanted[field] != kept[field]]:
        listed = ", ".join(f"--{name.replace('_', '-')}" for name in others)
        said = f"it runs already, with another value of {listed}; `backend down` first"
        console.print(as_typed(said, layout.data_dir), style="red")
        raise typer.Exit(1)


@app.command()
def status(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What runs and where. Exit status 0: all of it is ready; 3: it does not run; 4: it runs, but not all is ready."""
    layout = Layout(data_dir.resolve())
    there = exists(layout)
    current = state.read(layout)
    running = state.is_running(current)
    if current is not None and running:
        asyncio.run(_ask_each(Layout(layout.data_dir, current.port_offset), current))
    if as_json:
        sys.stdout.write(json.dumps(_as_json(layout, current, running=running), indent=2) + "\n")
    elif current is None or not running:
        if there:
            console.print("not running")
        if current is not None and current.error:
            console.print(as_typed(f"The last start failed:\n\n{current.error}", layout.data_dir))
    else:
        table = Table("process", "state", "pid", "restarts", box=None)
        for process in current.processes:
            table.add_row(process.name, process.state, str(process.pid or ""), str(process.restarts))
        console.print(table)
        for process in current.processes:
            for check, found in process.found.items():
                console.print(f"{process.name}: {check}: {found}", style="yellow")
        for name, url in _places(layout, current).items():
            console.print(f"{name:<12} {url}")
        _print_accounts(current)
    if current is None or not running:
        raise typer.Exit(NOT_RUNNING)
    if not current.ready:
        raise typer.Exit(_NOT_READY)


def _places(layout: Layout, current: StackState) -> dict[str, str]:
    up_for = datetime.now(UTC) - datetime.fromtimestamp(current.supervisor_created, UTC)
    return {
        "data dir": str(layout.data_dir),
        "port offset": str(current.port_offset),
        "up for": str(timedelta(seconds=int(up_for.total_seconds()))),
        "docs": f"{current.endpoints['public']}/docs",
        **current.endpoints,
    }


async def _ask_each(layout: Layout, current: StackState) -> None:
    """Replace what the supervisor last knew of the processes that serve by what they say now."""
    health = Health(layout, current.endpoints)
    serving = [process for process in current.processes if process.state in ("ready", "unhealthy")]
    for process, now in zip(serving, await asyncio.gather(*(health.now(p.name) for p in serving)), strict=True):
        process.state, process.found = now
    current.ready = current.ready and all(process.state == READY for process in current.processes)


@app.command()
def restart(name: str, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop one process cleanly; the supervisor starts it again. Returns once it is ready."""
    layout = Layout(data_dir.resolve())
    current = running_or_exit(layout)
    process = next((p for p in current.processes if p.name == name), None)
    if process is None or process.pid is None:
        console.print(f"no process {name!r}; there are: {', '.join(p.name for p in current.processes)}", style="red")
        raise typer.Exit(2)
    os.kill(process.pid, process.stop_signal)
    give_up = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < give_up:
        now = state.read(layout)
        entry = next((p for p in now.processes if p.name == name), None) if now else None
        if entry is not None and entry.pid != process.pid and entry.state == "ready":
            console.print(f"{name} restarted")
            return
        time.sleep(_POLL_SECONDS)
    console.print(as_typed(f"{name} did not come back; see `backend logs {name}`", layout.data_dir), style="red")
    raise typer.Exit(1)


@app.command()
def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop everything cleanly; the data stay."""
    layout = Layout(data_dir.resolve())
    if exists(layout) and not _stop(layout):
        console.print("not running")


@app.command()
def reset(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Stop everything and delete all data."""
    layout = Layout(data_dir.resolve())
    if not yes:
        typer.confirm(f"Delete everything in {layout.data_dir}?", abort=True)
    _stop(layout)
    # Only a directory that is ours: a mistyped --data-dir must not cost anything.
    if is_foreign(layout):
        console.print(_FOREIGN.format(layout.data_dir, "deleted"), style="red")
        raise typer.Exit(2)
    shutil.rmtree(layout.data_dir, ignore_errors=True)
    shutil.rmtree(layout.sockets, ignore_errors=True)


app.add_typer(logs.app)
app.add_typer(trace.app)
app.add_typer(database.app)
app.add_typer(log_level.app)
app.add_typer(debug.app)
app.add_typer(events.app, name="events")
app.add_typer(mails.app, name="mails")
app.add_typer(secrets.app, name="secrets")
app.add_typer(keys.app, name="keys")
app.add_typer(certificates.app, name="certs")
app.add_typer(admins.app, name="admin")
app.add_typer(new.app, name="new")


def _start(layout: Layout, options: Options, owner: int | None, progress: Progress) -> bool:
    """Start a supervisor and wait for what comes of it; False when another one is at work there.

    Raises:
        typer.Exit: 1, it could not even say what came of it; 130, Ctrl-C.
    """
    layout.logs.mkdir(parents=True, exist_ok=True)
    with (layout.logs / "supervisor.log").open("ab") as log:
        supervisor = subprocess.Popen(
            [
                sys.executable, "-m", "devstack.supervisor",
                "--data-dir", str(layout.data_dir), "--port-offset", str(layout.port_offset),
                "--options", json.dumps(asdict(options)),
                *(() if owner is None else ("--die-with", str(owner))),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )  # fmt: skip

    def is_over() -> bool:
        current = state.read(layout)
        started = current is not None and current.supervisor_pid == supervisor.pid and current.ready
        return started or supervisor.poll() is not None

    try:
        progress.show(is_over)
        ended, current = supervisor.poll(), state.read(layout)
        if ended == state.ANOTHER_RUNS:
            return False
        if ended is not None and (current is None or current.supervisor_pid != supervisor.pid):
            # What it has said is shown; the state that is there is another run's.
            full = shutil.disk_usage(layout.data_dir).free < _LEAST_FREE_BYTES
            console.print(_FULL if full else f"the supervisor ended with status {ended}", style="red")
            raise typer.Exit(1)
    except KeyboardInterrupt:
        supervisor.terminate()
        console.print("stopping")
        supervisor.wait()
        raise typer.Exit(130) from None
    return True


def _stop(layout: Layout) -> bool:
    """Whether there was something to stop."""
    current = _running(layout)
    if current is None:
        return False
    os.kill(current.supervisor_pid, 15)
    give_up = time.monotonic() + _STOP_SECONDS
    while state.is_running(current):
        if time.monotonic() > give_up:
            console.print("the supervisor does not stop", style="red")
            raise typer.Exit(1)
        time.sleep(_POLL_SECONDS)
    console.print("stopped")
    return True


def _as_json(layout: Layout, current: StackState | None, *, running: bool) -> dict[str, object]:
    where = {"data_dir": str(layout.data_dir), "error": current.error if current else ""}
    if current is None or not running:
        return {**where, "ready": False, "endpoints": {}, "processes": [], "demo": {}}
    return {
        **where,
        "ready": current.ready,
        "port_offset": current.port_offset,
        "since": datetime.fromtimestamp(current.supervisor_created, UTC).isoformat(timespec="seconds"),
        "endpoints": current.endpoints,
        "processes": [
            {"name": p.name, "pid": p.pid, "state": p.state, "restarts": p.restarts, "found": p.found}
            for p in current.processes
        ],
        "demo": current.demo,
    }


def _print_welcome(current: StackState, data_dir: Path) -> None:
    public = current.endpoints["public"]
    console.print(
        f"\nThe platform is ready.\n\n  Console        {current.endpoints[CONSOLE]}\n  API            {public}\n"
        f"  API over TLS   {current.endpoints['public_tls']}"
    )
    trust = as_typed("`backend certs trust` says how a browser or curl trusts the certificate.", data_dir)
    console.print(f"  API reference  {public}/docs\n\n  {trust}")


def _print_accounts(current: StackState) -> None:
    if current.demo:
        console.print("\n  Demo accounts")
    for role, account in current.demo.items():
        console.print(f"    {role:<10} {account['email']:<24} {account['password']}")


def main() -> None:
    """Entry point."""
    # What is written in a stack's directory is its owner's alone.
    os.umask(0o077)
    # Completion is installed for the name alone: the shell finds that by a path as well.
    completion = sys.argv[1:2] in (["--install-completion"], ["--show-completion"])
    try:
        app(prog_name="backend" if completion else PROGRAM, complete_var="_BACKEND_COMPLETE")
    except OSError as error:
        errors.print(as_typed(explained(error)), style="red")
        sys.exit(1)
