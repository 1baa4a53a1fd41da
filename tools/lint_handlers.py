"""Whether the services implement their contracts: each is wired as when it starts, over nothing, and binds its handlers."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import bff.main
import bff.settings
import grpc
import order.main
import order.settings
import user.main
import user.settings
from chassis.config import load
from chassis.database import Database
from chassis.grpc.peer import Peer
from chassis.grpc.policy import ContractMismatchError
from chassis.grpc.server import GrpcApplication
from chassis.valkey import PipelinedClient
from devstack.layout import Layout
from devstack.options import Options
from devstack.secrets import load_or_create, write_passwords
from user.service.passwords import Passwords

from devstack import keys, services


def bind_bff(client: PipelinedClient) -> None:
    """Every operation of the public API."""
    # Nobody listens there, and nothing is called.
    channel = grpc.aio.insecure_channel("127.0.0.1:1")
    bff.main.build(load(bff.settings.Settings), client, Peer(channel), Peer(channel))


def bind_user(client: PipelinedClient) -> None:
    """Every method of the User service's contract."""
    settings = load(user.settings.Settings)
    passwords = Passwords(1, 1)
    try:
        database = Database.configured(settings, service="user")
        user.main.build(settings, database, client, passwords).add_to(GrpcApplication())
    finally:
        passwords.close()


def bind_order(client: PipelinedClient) -> None:
    """Every method of the Order service's contract."""
    settings = load(order.settings.Settings)
    database = Database.configured(settings, service="order")
    order.main.build(settings, database, client).add_to(GrpcApplication())


BINDINGS: dict[str, Callable[[PipelinedClient], None]] = {"bff": bind_bff, "user": bind_user, "order": bind_order}


async def problems(layout: Layout) -> list[str]:
    """What each service's handlers and its contract do not agree on; `layout` is of an empty directory."""
    found = []
    made = load_or_create(layout.secrets)
    write_passwords(layout.secrets, made)
    keys.ensure(layout)
    for name, bind in BINDINGS.items():
        os.environ.update(services.environment(name, layout, made, Options()))
        client = PipelinedClient(services.valkey_url(layout, made))
        try:
            bind(client)
        except ContractMismatchError as error:
            found.append(f"{name}: {error}")
        finally:
            await client.close()
    return found


def main() -> None:
    """Print every problem; exit 1 when there is one."""
    with tempfile.TemporaryDirectory() as directory:
        if found := asyncio.run(problems(Layout(Path(directory)))):
            sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
