"""The ports of a stack: which, whether they are free, and where there are as many that are.

All of a stack's lie within one hundred, so that offsets of 100, 200, … are next door and never overlap:

    8080          HTTP                      8143          HTTPS (TCP) and HTTP/3 (UDP)
    8140          the edge's probes and metrics          8090          the console, which spans are sent to
    8095          the broker of events               8097          the mailbox

and two of each process of a service, its own and that of its probes and metrics, as mesh.topology.TABLE says.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
from mesh.topology import EDGE, OTHER_PORTS, PORTS_EACH

from devstack.layout import HIGHEST_OFFSET, Layout
from devstack.options import Options

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@dataclass(frozen=True, slots=True)
class Port:
    """What one listener is bound to."""

    name: str
    number: int
    # tcp or udp
    kind: str = "tcp"

    def is_free(self) -> bool:
        """Whether we could listen there now."""
        with socket.socket(type=_KINDS[self.kind]) as probe:
            if self.kind == "tcp":
                # What was closed a moment ago is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.number))
            except OSError:
                return False
        return True

    def owner(self) -> str:
        """Who has it, as the end of a sentence; empty when that cannot be known."""
        with contextlib.suppress(psutil.Error):
            for connection in psutil.net_connections(self.kind):
                listens = self.kind == "udp" or connection.status == psutil.CONN_LISTEN
                if listens and connection.laddr and connection.laddr[1] == self.number and connection.pid is not None:
                    return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
        return ""


def of_stack(layout: Layout, options: Options) -> Iterator[Port]:
    """Every port that a stack listens on."""
    yield Port("public", layout.port("public"))
    yield Port("public_tls", layout.port("public_tls"))
    if "http3" not in options.without:
        yield Port("public_tls", layout.port("public_tls"), "udp")
    for name in OTHER_PORTS:
        yield Port(name, layout.port(name))
    for name in options.every_process:
        if name != EDGE.name:
            yield Port(name, layout.port(name))
        yield Port(f"{name}_ops", layout.port(f"{name}_ops"))


def next_free_offset(layout: Layout, options: Options) -> int | None:
    """The next offset, in hundreds, at which all of them are free; None when there is none."""
    first = (layout.port_offset // PORTS_EACH + 1) * PORTS_EACH
    for offset in range(first, HIGHEST_OFFSET + 1, PORTS_EACH):
        if all(port.is_free() for port in of_stack(Layout(layout.data_dir, offset), options)):
            return offset
    return None
