"""How the mesh is run, where that differs from the defaults: the same wherever it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Every policy of templates/policies that can be left out, and the services' own admission.
POLICIES = (
    "mtls", "peers", "admission", "access_log", "statistics", "circuit_breakers", "flow_control", "outliers", "health_checks", "overload",
    "connections", "authentication", "doubled_credentials", "client_headers", "address_rate_limits", "global_rate_limits", "local_rate_limits",
    "authorities", "body_limit", "header_bounds", "slow_senders", "paths", "http2_floods", "security_headers", "compression", "cors",
    "http3", "tracing",
)  # fmt: skip
# A scheme, a host (an IPv6 address in brackets) and perhaps a port (RFC 6454, section 6.2), in small letters as browsers
# send them.
_ORIGIN = re.compile(r"https?://([0-9a-z._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Policies:
    """What the Envoys are rendered with, and some services are told (`mesh.variables`)."""

    # Policies left out: for the tests that prove what each is for, and to measure what each costs.
    without: tuple[str, ...] = ()
    # Multiplies every limit of the contract.
    rate_limit_scale: float = 1.0
    cors_origins: tuple[str, ...] = ()
    # Networks (CIDR) whose X-Forwarded-For and X-Request-Id count.
    trusted_proxies: tuple[str, ...] = ()
    # Plain HTTP only redirects to HTTPS.
    https_only: bool = False
    # The window in which the limiter counts an address's new connections, and longer than any of them lives.
    connection_seconds: int = 300
    # Of one Envoy: connections to it, and its own heap (without Python's).
    max_connections: int = 4096
    max_heap_mib: int = 512
    # Of all requests, the share that is traced: decided at the edge, by the trace's id.
    trace_ratio: float = 0.1


def parse_without(texts: list[str]) -> tuple[str, ...]:
    """Names of policies.

    Raises:
        ValueError: there is no such policy.
    """
    for text in texts:
        if text not in POLICIES:
            raise ValueError(f"there is no policy {text!r}; there are: {', '.join(POLICIES)}")
    return tuple(texts)


def parse_origins(texts: list[str]) -> tuple[str, ...]:
    """Web origins, as browsers send them.

    Raises:
        ValueError: one is no origin.
    """
    for text in texts:
        if not _ORIGIN.fullmatch(text):
            raise ValueError(f"{text!r} is no origin: write SCHEME://HOST[:PORT], like https://app.example.com")
    return tuple(texts)
