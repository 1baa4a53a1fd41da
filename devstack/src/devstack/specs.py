"""How each process of a stack is run."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from mesh.topology import BROKER, CONSOLE, MAILBOX

from devstack import broker, health, postgres, privileges, valkey
from devstack.layout import Layout
from devstack.options import Options
from devstack.processes import Spec
from devstack.secrets import Secrets


def database(layout: Layout) -> Spec:
    """PostgreSQL."""
    return Spec(
        name="postgres",
        command=postgres.command(layout),
        waits_for="accepts connections",
        is_ready=lambda: postgres.accepts_connections(layout),
        before=lambda: postgres.remove_stale_lock(layout),
        cwd=postgres.directory(layout),
        setup=privileges.child_setup([postgres.BINARIES / "postgres"]),
        stop_signal=signal.SIGINT,
    )


def memory(server: str, layout: Layout, secrets: Secrets, options: Options) -> Spec:
    """One of the Valkey servers."""
    return Spec(
        name=server,
        command=valkey.command(server, layout, secrets, options),
        waits_for="answers PING",
        is_ready=partial(health.valkey_answers, layout, server),
        setup=privileges.die_with_parent(signal.SIGTERM),
    )


def events(layout: Layout) -> Spec:
    """The broker of events."""
    return Spec(
        name=BROKER,
        command=broker.command(layout),
        waits_for="has its streams",
        is_ready=partial(health.broker_works, layout),
        setup=privileges.die_with_parent(signal.SIGTERM),
    )


def console(layout: Layout) -> Spec:
    """The page on which all of this is seen, and where spans are sent to."""
    ready = f"http://127.0.0.1:{layout.port(CONSOLE)}/healthz/ready"
    return Spec(
        name=CONSOLE,
        command=[
            sys.executable, "-m", "devstack.console",
            "--data-dir", str(layout.data_dir), "--port-offset", str(layout.port_offset),
        ],
        waits_for=ready,
        is_ready=partial(health.answers_ok, ready),
        setup=privileges.die_with_parent(signal.SIGTERM),
    )  # fmt: skip


def mailbox(layout: Layout) -> Spec:
    """What takes mail."""
    return Spec(
        name=MAILBOX,
        command=[
            sys.executable, "-m", "devstack.mailbox",
            "--data-dir", str(layout.data_dir), "--port-offset", str(layout.port_offset),
        ],
        waits_for="greets",
        is_ready=partial(health.mailbox_greets, layout),
        setup=privileges.die_with_parent(signal.SIGTERM),
    )  # fmt: skip


def hosted(name: str, configuration: Path, ops: str, environment: Mapping[str, str]) -> Spec:
    """An Envoy, with the Python of its service inside.

    Args:
        name: of the process.
        configuration: the Envoy's, rendered.
        ops: where its probes are.
        environment: the configuration of its service.
    """
    return Spec(
        name=name,
        command=[sys.executable, "-m", "chassis.launch", str(configuration)],
        waits_for=f"{ops}/healthz/ready",
        is_ready=partial(health.answers_ok, f"{ops}/healthz/ready"),
        is_alive=partial(health.answers_ok, f"{ops}/healthz/live"),
        environment=environment,
        setup=privileges.die_with_parent(signal.SIGTERM),
    )
