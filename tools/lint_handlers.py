"""Whether the services implement their contracts: each is wired as when it starts, over nothing, and binds its handlers."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import get_type_hints

import grpc
from chassis.config import ConfigurationError, DatabaseSettings, Settings, load
from chassis.database import Database
from chassis.grpc.peer import Peer
from chassis.grpc.policy import ContractMismatchError
from chassis.grpc.server import GrpcApplication
from chassis.valkey import PipelinedClient
from devstack.layout import Layout
from devstack.options import Options
from devstack.secrets import load_or_create, write_passwords
from mesh.topology import SERVICES, Service
from user.service.passwords import Passwords

from devstack import keys, services


def bind(service: Service, stack: ExitStack) -> None:
    """Wire a service by its `main.build`, each parameter by its type, and bind what comes of it to its contract.

    Raises:
        ContractMismatchError: naming each operation or method without a handler.
        ConfigurationError: naming each variable that is missing.
    """
    build = importlib.import_module(f"{service.package}.main").build
    types = get_type_hints(build)
    needed = [name for name, p in inspect.signature(build).parameters.items() if p.default is p.empty]
    settings = load(importlib.import_module(f"{service.package}.settings").Settings)
    built = build(**{name: over_nothing(types[name], settings, service, stack) for name in needed})
    if service.serves_grpc:
        built.add_to(GrpcApplication())


def over_nothing(kind: object, settings: Settings, service: Service, stack: ExitStack) -> object:
    """What a service is wired over, of this type; nobody listens there, and nothing is called.

    Raises:
        TypeError: there is none of this type.
    """
    if kind is type(settings):
        return settings
    if kind is Database and isinstance(settings, DatabaseSettings):
        return Database.configured(settings, service=service.name)
    if kind is PipelinedClient:
        return PipelinedClient("unix://nobody@/nowhere?db=0")
    if kind == Callable[[str], Peer]:
        return lambda _: Peer(grpc.aio.insecure_channel("127.0.0.1:1"))
    if kind is Passwords:
        passwords = Passwords(1, 1)
        stack.callback(passwords.close)
        return passwords
    raise TypeError(f"{service.package}.main.build wants {kind}; say here what that is over nothing")


async def problems(layout: Layout) -> list[str]:
    """What each service's handlers and its contract do not agree on; `layout` is of an empty directory."""
    found = []
    made = load_or_create(layout.secrets)
    write_passwords(layout.secrets, made)
    keys.ensure(layout)
    for service in SERVICES:
        os.environ.update(services.environment(service.name, layout, made, Options()))
        with ExitStack() as stack:
            try:
                bind(service, stack)
            except (ContractMismatchError, ConfigurationError, TypeError) as error:
                found.append(f"{service.name}: {error}")
    return found


def main() -> None:
    """Print every problem; exit 1 when there is one."""
    with tempfile.TemporaryDirectory() as directory:
        if found := asyncio.run(problems(Layout(Path(directory)))):
            sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
