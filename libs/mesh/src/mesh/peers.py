"""Who may call what of whom: as the contracts say for gRPC, as the table's upstreams say for HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from contracts.common.v1 import options_pb2
from google.protobuf.descriptor import FileDescriptor

from mesh.topology import OPERATORS, TABLE, Service


@dataclass(frozen=True, slots=True)
class PeerRule:
    """Who may call the paths below a prefix."""

    prefix: str
    callers: tuple[str, ...]


def callers(service: Service) -> dict[str, tuple[str, ...]]:
    """Whom each contract of a gRPC service lets call, by the full name of what it defines.

    Raises:
        ModuleNotFoundError: nothing is generated of a contract.
    """
    found = {}
    for contract in service.contracts if service.serves_grpc else ():
        for defined in _descriptor(contract).services_by_name.values():
            found[defined.full_name] = tuple(defined.GetOptions().Extensions[options_pb2.callers])
    return found


def rules(service: Service) -> tuple[PeerRule, ...]:
    """The rules of a service's listener: the contracts' callers; health for them and operators; reflection for operators."""
    if not service.serves_grpc:
        return (PeerRule("/", tuple(row.name for row in TABLE if service.name in row.upstreams)),)
    by_contract = callers(service)
    everybody = sorted({caller for named in by_contract.values() for caller in named})
    return (
        *(PeerRule(f"/{name}/", named) for name, named in by_contract.items()),
        PeerRule("/grpc.health.v1.Health/", (*everybody, OPERATORS)),
        PeerRule("/grpc.reflection.", (OPERATORS,)),
    )


def _descriptor(contract: str) -> FileDescriptor:
    name = contract.removeprefix("proto/").removesuffix(".proto").replace("/", ".")
    found: FileDescriptor = import_module(f"contracts.{name}_pb2").DESCRIPTOR
    return found
