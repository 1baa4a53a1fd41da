"""Which limit applies to what an edge asks about (Envoy calls it a descriptor)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

from chassis.errors import ServiceError
from contract_runtime.operation import Operation

# A provider usually gives each customer a network of this size. If single addresses were counted, every customer would
# have 2**64 limits.
_IPV6_PREFIX = 64


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `requests` in any window of `seconds`."""

    requests: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Opening:
    """A new connection that an address asks for."""

    address: str
    # How many connections the edge may have in all.
    connections: int
    # Which start of which edge asks; None for HTTP/3, where the edge does not say.
    edge: str | None


class Limits:
    """The contract's limits, and that of new connections from one address, each multiplied by `scale`."""

    def __init__(self, operations: Iterable[Operation], *, connections: Limit, scale: float) -> None:

        def scaled(limit: Limit) -> Limit:
            return Limit(max(1, int(limit.requests * scale)), limit.seconds)

        self._by_operation = {
            operation.id: scaled(Limit(operation.rate_limit.requests, operation.rate_limit.seconds))
            for operation in operations
        }
        # Of new connections from one address.
        self.connections = scaled(connections)

    def find(self, domain: str, entries: dict[str, str]) -> tuple[str, Limit]:
        """The counter's name and its limit.

        Raises:
            ServiceError: INVALID_ARGUMENT for a descriptor that no policy of ours sends.
        """
        match (domain, entries):
            case ("operations", {"operation": operation, "user": user}) if operation in self._by_operation:
                return f"{operation}:user:{user}", self._by_operation[operation]
            case ("operations", {"operation": operation, "remote_address": address}) if operation in self._by_operation:
                return f"{operation}:address:{network_of(address)}", self._by_operation[operation]
        raise ServiceError("INVALID_ARGUMENT", f"no limit for {sorted(entries)} in domain {domain}")

    def opening(self, entries: dict[str, str]) -> Opening:
        """The connection that a descriptor of the domain `connections` asks for.

        Raises:
            ServiceError: INVALID_ARGUMENT for a descriptor that no policy of ours sends.
        """
        address, connections, edge = entries.get("remote_address"), entries.get("connections", ""), entries.get("edge")
        if address is None or not connections.isdecimal() or not (edge is None or edge.isalnum()):
            raise ServiceError("INVALID_ARGUMENT", f"no connection is asked for by {sorted(entries)}")
        return Opening(network_of(address), int(connections), edge)


def network_of(address: str) -> str:
    """The address that is counted: an IPv4 address, or the network of an IPv6 one.

    Raises:
        ServiceError: INVALID_ARGUMENT when it is no address.
    """
    try:
        parsed = ip_address(address)
    except ValueError as error:
        raise ServiceError("INVALID_ARGUMENT", "not an address") from error
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ip_network((parsed, _IPV6_PREFIX), strict=False).network_address)
    return str(parsed)
