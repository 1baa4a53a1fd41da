"""How commands reach a service's Python from inside the data directory: over its own Unix socket, which its owner alone opens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer
from mesh.topology import SERVICES, service_of

from devstack.commands.stack import console, running_or_exit
from devstack.layout import Layout

if TYPE_CHECKING:
    import httpx


def processes_or_exit(layout: Layout, service: str) -> list[str]:
    """The processes of a service that has Python in it; or the one process of that name.

    Raises:
        typer.Exit: 2, there is none, and those that there are have been said; 3, the stack does not run.
    """
    running = running_or_exit(layout)
    services = [row.name for row in SERVICES]
    known = [p.name for p in running.processes if service_of(p.name) in services]
    names = [name for name in known if name == service or service_of(name) == service]
    if not names:
        console.print(f"no service {service!r}; there are: {', '.join(known)}", style="red")
        raise typer.Exit(2)
    return names


def asking(layout: Layout, name: str, seconds: float = 5.0) -> httpx.Client:
    """A client of one process; the working directory is the data directory from then on.

    Args:
        layout: where the stack is.
        name: of the process.
        seconds: until an answer has to come.
    """
    import httpx

    # The path of a Unix socket must be short: from here.
    os.chdir(layout.data_dir)
    transport = httpx.HTTPTransport(uds=f"run/{name}.ops.sock")
    return httpx.Client(transport=transport, base_url="http://ops", timeout=seconds)
