"""What follows from the table of services inside files that people write: blocks between two marks.

pyproject.toml         mypy's path, and the import contracts
docs/architecture.md   the tables of processes and of data
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mesh.topology import EDGE, SERVICES, TABLE, Service

ROOT = Path(__file__).resolve().parent.parent
_SOURCE = "libs/mesh/src/mesh/topology.py"
# The rooms of a service, each above the next; those in brackets need not be there.
_ROOMS = ["main", "(handlers)", "(service)", "(repository) : (gateways)", "(domain)"]
_IO_LIBRARIES = ["asyncpg", "redis", "grpc", "starlette", "asyncio", "contracts", "httpx", "pyvoy", "nats"]


class BlockError(Exception):
    """A file has not the marks that it should have."""


def current() -> dict[Path, str]:
    """The files that have blocks, with the blocks as they should be.

    Raises:
        BlockError: a mark is missing, or is there twice.
    """
    blocks = {
        "pyproject.toml": {"mypy_path": _mypy_path(), "importlinter": _import_contracts()},
        "docs/architecture.md": {"processes": _processes(), "data": _data()},
    }
    return {Path(path): _with(path, found) for path, found in blocks.items()}


def _with(path: str, blocks: dict[str, str]) -> str:
    text = (ROOT / path).read_text(encoding="utf-8")
    begin, end = ("<!-- ", " -->") if path.endswith(".md") else ("# ", "")
    for name, block in blocks.items():
        first = f"{begin}generated: {name}, from {_SOURCE}{end}\n"
        last = f"{begin}generated until here{end}\n"
        pattern = re.compile(re.escape(first) + ".*?" + re.escape(last), re.DOTALL)
        parts = pattern.split(text)
        if len(parts) != 2:
            raise BlockError(f"{path} has {len(parts) - 1} blocks {first.strip()!r}; one is needed")
        text = (first + block + last).join(parts)
    return text


def _mypy_path() -> str:
    libraries = [f"libs/{name}/src" for name in ("contracts", "chassis", "mesh")]
    paths = [*libraries, *(f"{service.folder}/src" for service in SERVICES), "devstack/src"]
    return f"mypy_path = {_list([*paths, 'tools', 'tools/bench', 'tools/bench/peers', 'tests'])}\n"


def _import_contracts() -> str:
    services = [service.package for service in SERVICES]
    with_domain = [f"{service.package}.domain" for service in SERVICES if _has(service, "domain")]
    contracts = [
        _contract("A service imports no other service", "independence", modules=services),
        _forbidden(
            "The chassis imports no contract of one service", ["chassis", "contract_runtime"], _contracts_of_services()
        ),
        _forbidden(
            "The chassis imports no service, no mesh and no devstack", ["chassis"], [*services, "mesh", "devstack"]
        ),
        _forbidden("The mesh imports no service and no devstack", ["mesh"], [*services, "devstack"]),
        _forbidden("No service imports mesh or devstack", services, ["mesh", "devstack"]),
        _forbidden(
            "Generated code imports nothing of ours but what it is made of",
            ["contracts", "contract_runtime"],
            ["chassis", "mesh", *services, "devstack"],
        ),
        _contract(
            "Inside a service: handlers, service, repository and gateways, domain",
            "layers",
            containers=services,
            layers=_ROOMS,
        ),
        _forbidden("The domain imports no I/O library", with_domain, _IO_LIBRARIES),
        _forbidden("Only chassis.host knows the Envoy host", services, ["pyvoy", "pyqwest"])
        + "allow_indirect_imports = true\n",
        _forbidden("Only chassis.events knows the broker's client", services, ["nats"])
        + "allow_indirect_imports = true\n",
    ]
    head = f"[tool.importlinter]\ninclude_external_packages = true\nroot_packages = {_list(['contract_runtime', 'contracts', 'chassis', 'mesh', *services, 'devstack'])}\n"
    return "\n".join([head, *contracts])


def _contracts_of_services() -> list[str]:
    """The packages that are generated of their contracts: contracts.order of proto/order/v1, contracts.bff of bff.v1.yaml."""
    files = [contract.split("/")[1] for service in SERVICES for contract in service.contracts]
    return list(dict.fromkeys(f"contracts.{file.partition('.')[0]}" for file in files))


def _forbidden(name: str, sources: Sequence[str], targets: Sequence[str]) -> str:
    return _contract(name, "forbidden", source_modules=sources, forbidden_modules=targets)


def _contract(name: str, kind: str, **lists: Sequence[str]) -> str:
    lines = [f"[[tool.importlinter.contracts]]\nname = {json.dumps(name)}\ntype = {json.dumps(kind)}\n"]
    return "".join([*lines, *(f"{key} = {_list(values)}\n" for key, values in lists.items())])


def _list(values: Iterable[str]) -> str:
    return json.dumps(list(values))


def _has(service: Service, room: str) -> bool:
    return (ROOT / service.folder / "src" / service.package / room).is_dir()


def _data() -> str:
    """Who owns what is stored, and who else reads it."""
    owned = [(f"`{own.database.name}` (PostgreSQL)", own.name, "") for own in SERVICES if own.database]
    users = [(service.name, service.valkey) for service in SERVICES if service.valkey]
    for owner, valkey in users:
        for pattern in valkey.keys:
            readers = [name for name, other in users if pattern in other.reads]
            owned.append((f"`{pattern}` ({valkey.server})", owner, ", ".join(readers)))
    return _table([("data", "owner", "also read by"), ("---",) * 3, *owned])


def _processes() -> str:
    rows = [("process", "code", "listens (plus `--port-offset`)", "ops", "calls", "database", "Valkey"), ("---",) * 7]
    for row in reversed(TABLE):
        calls = ", ".join(row.upstreams)
        if isinstance(row, Service):
            protocol = "gRPC" if row.serves_grpc else "HTTP/2"
            database = f"`{row.database.name}`" if row.database else ""
            keys = (*row.valkey.keys, *row.valkey.reads) if row.valkey else ()
            valkey = f"{row.valkey.server}: {' '.join(f'`{key}`' for key in keys)}" if row.valkey else ""
            listens = f"{row.port} {protocol}, mTLS"
            rows.append((row.name, f"`{row.package}.main:app`", listens, str(row.ops_port), calls, database, valkey))
        else:
            listens = f"{EDGE.port} HTTP, {EDGE.tls_port} HTTPS and HTTP/3"
            rows.append((row.name, "none", listens, str(row.ops_port), calls, "", ""))
    return _table(rows)


def _table(rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in rows).replace("|  |", "| |")
