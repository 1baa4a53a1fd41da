"""Everything that is wrong with the table: in itself, and beside the contracts and what the services are told."""

from __future__ import annotations

from mesh import peers, topology, variables
from mesh.topology import SERVICES


class TableError(Exception):
    """The table of services is wrong; the message has a line for each fault."""


def require() -> None:
    """Refuse to go on with a table that is wrong.

    Raises:
        TableError: naming every fault.
    """
    if found := faults():
        raise TableError("the table of services (libs/mesh/src/mesh/topology.py) is wrong:\n" + "\n".join(found))


def faults() -> list[str]:
    """A line for each thing that is wrong."""
    callers, found = {}, []
    for service in SERVICES:
        try:
            callers[service.name] = peers.callers(service)
        except ModuleNotFoundError as error:
            found.append(f"{service.name}: {error.name} is not there: is each of its contracts in api/, and generated?")
        found += [
            f"{service.name}: nobody knows the value of {name}; there are: {', '.join(variables.VALUES)}"
            for name in service.policies
            if name not in variables.VALUES
        ]
    return [*topology.faults(callers=callers), *found]
