"""Everything that keeps services from starting, said at once and without a start: the table, variables, contracts.

A start ends with the first service that fails, and a service with its first fault, so that each fault would cost a start.
`python -m devstack.preflight` finds all of them, a line each. `make lint` runs it, and the supervisor after a start in which
a service has failed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args, get_origin, get_type_hints

from chassis.config import ConfigurationError, Settings, load
from chassis.grpc.peer import Peer
from chassis.grpc.policy import ContractMismatchError
from chassis.grpc.server import GrpcApplication
from chassis.host import upstream_channel
from mesh import checks
from mesh.topology import SERVICES, Service

from devstack import keys, services
from devstack.layout import Layout
from devstack.options import Options
from devstack.secrets import load_or_create


async def problems(layout: Layout, options: Options) -> list[str]:
    """A line for each fault, which begins with the name of the service. Secrets and keys are made in an empty `layout`."""
    found = checks.faults()
    made = load_or_create(layout.secrets)
    keys.ensure(layout)
    for service in SERVICES:
        variables = services.environment(service.name, layout, made, options)
        found += [f"{service.name}: {problem}" for problem in _of_service(service, variables, layout)]
    return found


def _of_service(service: Service, variables: Mapping[str, str], layout: Layout) -> Iterator[str]:
    try:
        main = importlib.import_module(f"{service.package}.main")
        kind: type[Settings] = importlib.import_module(f"{service.package}.settings").Settings
    except Exception as error:
        yield f"cannot be imported: {type(error).__name__}: {error}"
        return
    try:
        settings = load(kind, variables)
    except ConfigurationError as error:
        yield from error.problems
        settings = _with_anything(kind, layout)
    try:
        _bind(service, main, settings)
    except ContractMismatchError as error:
        yield from error.problems
    except Exception as error:
        yield f"cannot be wired: {type(error).__name__}: {error}"


def _bind(service: Service, main: ModuleType, settings: Settings) -> None:
    """Wire a service by its `main.build`, with something of each parameter's type, and bind it to its contract."""
    types = get_type_hints(main.build)
    needed = [name for name, p in inspect.signature(main.build).parameters.items() if p.default is p.empty]
    built = main.build(**{name: _over_nothing(types[name], settings) for name in needed})
    if service.serves_grpc:
        built.add_to(GrpcApplication())


def _over_nothing(kind: object, settings: Settings) -> object:
    if isinstance(kind, type) and isinstance(settings, kind):
        return settings
    if kind == Callable[[str], Peer]:
        return lambda name: Peer(upstream_channel(name))
    if isinstance(kind, type):
        # A pool, a client: it is handed on, and nothing is asked of it, so it need not be initialised.
        return object.__new__(kind)
    raise TypeError(f"nothing can stand for {kind}, which its main.build wants")


def _with_anything(kind: type[Settings], layout: Layout) -> Settings:
    """Settings of the right types, whatever the variables are: the contract is implemented with all values, or none."""
    files: dict[str, object] = {"jwks_file": keys.jwks_file(layout), "signing_keys_dir": keys.directory(layout)}
    required = {name: field.annotation for name, field in kind.model_fields.items() if field.is_required()}
    return kind.model_construct(None, **{name: files.get(name) or _anything(of) for name, of in required.items()})


def _anything(annotation: object) -> object:
    if isinstance(annotation, type):
        return annotation("1")
    # One of a union's types, or of a Literal's values.
    first = get_args(annotation)[0]
    return first if get_origin(annotation) is Literal else _anything(first)


def main() -> int:
    """Print every fault; 1 when there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="of the stack that did not start; one that nobody has, without")
    parser.add_argument("--port-offset", type=int, default=0)
    parser.add_argument("--options", type=json.loads, default={})
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as empty:
        layout = Layout(arguments.data_dir or Path(empty), arguments.port_offset)
        found = asyncio.run(problems(layout, Options(**arguments.options)))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
