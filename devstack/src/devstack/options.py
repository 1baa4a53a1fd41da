"""How a stack is run, where it differs from the defaults; chosen by `backend up`, kept in the stack's state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

# Every policy of deploy/envoy/policies that can be left out, and the services' own admission.
POLICIES = (
    "mtls", "peers", "admission", "access_log", "circuit_breakers", "flow_control", "outliers", "health_checks", "overload",
    "connections", "authentication", "doubled_credentials", "client_headers", "address_rate_limits", "global_rate_limits", "local_rate_limits",
    "authorities", "body_limit", "header_bounds", "slow_senders", "paths", "http2_floods", "security_headers", "compression", "cors",
    "http3",
)  # fmt: skip
# Every process with an Envoy, in the order in which they are listed.
SERVICES = ("limiter", "user", "order", "bff", "edge")
# A scheme, a host (an IPv6 address in brackets) and perhaps a port (RFC 6454, section 6.2), in small letters as browsers
# send them.
_ORIGIN = re.compile(r"https?://([0-9a-z._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
# Services that run as several processes when asked to.
REPLICATED = ("bff", "user", "order")
MAX_REPLICAS = 8


@dataclass(frozen=True, slots=True)
class Options:
    """See `backend up --help`."""

    replicas: Mapping[str, int] = field(default_factory=dict)
    # The policies that are left out, so that tests can show what each is for and benchmarks what each costs.
    without: tuple[str, ...] = ()
    certificate_seconds: float = 86400
    # Multiplies every limit of the contract.
    rate_limit_scale: float = 1.0
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    https_only: bool = False
    # In seconds: the window in which the limiter counts an address's new connections, which no connection outlives.
    connection_seconds: int = 300
    # Bounds of each Envoy: the connections to it, and its own heap, without what Python allocates in it.
    max_connections: int = 4096
    max_heap_mib: int = 512
    # Bounds of the two Valkey servers: the one of state, which is never evicted, and the one of cached copies.
    valkey_memory_mib: int = 512
    cache_memory_mib: int = 256
    # A process that answers no liveness probe for this long is killed and started again.
    liveness_seconds: float = 30.0
    # Whether products, accounts and orders to try are loaded on the first start.
    demo: bool = True

    def processes(self, service: str) -> tuple[str, ...]:
        """The names of a service's processes: order, order-2, order-3."""
        count = self.replicas.get(service, 1)
        return (service, *(f"{service}-{number}" for number in range(2, count + 1)))

    @property
    def every_process(self) -> tuple[str, ...]:
        """The names of all processes of all services."""
        return tuple(name for service in SERVICES for name in self.processes(service))


def parse_replicas(texts: list[str]) -> dict[str, int]:
    """How many processes each service runs as, from texts like `order=2`.

    Raises:
        ValueError: an unknown service or an impossible number.
    """
    replicas = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in REPLICATED or not number.isdigit() or not 1 <= int(number) <= MAX_REPLICAS:
            raise ValueError(
                f"{text!r}: write SERVICE=N with one of {', '.join(REPLICATED)} and N from 1 to {MAX_REPLICAS}"
            )
        replicas[name] = int(number)
    return replicas


def parse_without(texts: list[str]) -> tuple[str, ...]:
    """The names of policies, checked.

    Raises:
        ValueError: there is no such policy.
    """
    for text in texts:
        if text not in POLICIES:
            raise ValueError(f"there is no policy {text!r}; there are: {', '.join(POLICIES)}")
    return tuple(texts)


def parse_origins(texts: list[str]) -> tuple[str, ...]:
    """Web origins as browsers send them, checked.

    Raises:
        ValueError: one is no origin.
    """
    for text in texts:
        if not _ORIGIN.fullmatch(text):
            raise ValueError(f"{text!r} is no origin: write SCHEME://HOST[:PORT], like https://app.example.com")
    return tuple(texts)
