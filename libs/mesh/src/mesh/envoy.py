"""Renders the Envoy configurations from templates. Routes, callers, timeouts and limits come from the contracts.

Nothing here knows where the mesh runs. A `Site` says that, which is read from a file or made by `backend up`
(devstack.proxies).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network
from urllib.parse import urlsplit

import yaml
from chassis.config import ACCESS_TOKEN_SECONDS
from contract_runtime.operation import RateLimit
from contracts.bff.v1.operations import OPERATIONS
from contracts.errors import ERRORS
from jinja2 import Environment, PackageLoader, StrictUndefined

from mesh import peers, statistics
from mesh.policies import Policies
from mesh.site import Endpoint, Site
from mesh.topology import EDGE, Edge, Service, row, service_of

# The edge's configuration has 370 KB. The loader in C, which every wheel of PyYAML has, reads it in a sixth of the time.
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# How many seconds longer than the BFF the edge waits for an operation, so that a timeout is answered by the BFF.
EDGE_MARGIN = 1.0
MAX_BODY_BYTES = 65536
# Up to this size, a body that is too large is read and discarded, so that its client has sent everything when the refusal
# arrives.
MAX_DISCARDED_BYTES = 16 * 1024 * 1024
# How many header fields a request may have, and how large all of them may be. Our own operations need a tenth of both.
MAX_HEADERS = 64
MAX_HEADER_KIB = 8
# Memory that the edge needs while it waits for a request's body, in KiB, as measured with MAX_HEADERS fields: for a connection
# with TLS, and for each stream on it (without the bytes of its fields). A client sends a field that is in the header
# compression's table (RFC 7541) with a single byte.
_CONNECTION_KIB = 64
_STREAM_KIB = 36
# The parts of the edge's connections that one address may have: over TCP by its leases, and over HTTP/3 (services/limiter).
ADDRESS_PARTS = (1 / 17, 1 / 32)
# The part of the heap that the streams of one address may take at most.
_ADDRESS_HEAP = 0.45
# Between two of our processes there is one connection, which the requests of all clients share. A stream's window bounds what may
# wait on it for one slow reader; the largest request fits into it twice. The connection's window is twice as large as the
# windows of all of its streams together, so that clients which do not read never use up what the others need.
HOP_STREAMS = 256
HOP_STREAM_WINDOW = 2 * MAX_BODY_BYTES
HOP_CONNECTION_WINDOW = 2 * HOP_STREAMS * HOP_STREAM_WINDOW
# How many seconds a client may take to read an answer: once for the part that waits behind the edge, in addition to the
# operation's own time, and once more for the part that waits in the edge.
FLUSH_SECONDS = 10
# How many seconds a connection is given to end. Envoy announces the end for 5 s. A request that arrived by then is sent
# within 10 s, answered within 11 s (every operation takes less than 10 s; and EDGE_MARGIN), and its answer is read within
# twice FLUSH_SECONDS.
CONNECTION_DRAIN_SECONDS = 50
JWKS_CACHE_SECONDS = 15
# How many requests of any kind one address may send in a minute: enough for an office of 240 browsers with 50 requests each,
# or for ten times what one customer may read at once. Requests over the limit are answered after a delay (seconds). They get
# a status that nothing else uses, which is translated below.
ADDRESS_REQUESTS = 12_000
_ADDRESS_DELAY = 2
_ADDRESS_STATUS = 430
# Envoy's own answers, by their status: the status that the client gets instead, and the problem. Envoy answers 403 to a target
# that says https where nothing is encrypted (the token filter's 403 is told apart in edge.yaml.j2), and 501 to an unknown
# transfer coding: both are the client's mistake (400).
_LOCAL_REPLIES = {
    400: (400, "MALFORMED_REQUEST"),
    401: (401, "UNAUTHENTICATED"),
    403: (400, "MALFORMED_REQUEST"),
    404: (404, "NOT_FOUND"),
    405: (405, "METHOD_NOT_ALLOWED"),
    408: (408, "MALFORMED_REQUEST"),
    413: (413, "TOO_LARGE"),
    431: (431, "MALFORMED_REQUEST"),
    501: (400, "MALFORMED_REQUEST"),
    429: (429, "RATE_LIMITED"),
    _ADDRESS_STATUS: (429, "RATE_LIMITED"),
    503: (503, "UNAVAILABLE"),
    504: (504, "DEADLINE_EXCEEDED"),
}
_REPLY_HEADERS = {
    401: {"www-authenticate": 'Bearer realm="backend", error="invalid_token"'},
    503: {"retry-after": "1"},
    _ADDRESS_STATUS: {"retry-after": "1", "ratelimit": '"address";r=0;t=1'},
}
_PATH_PARAMETER = re.compile(r"{\w+}")


@dataclass(frozen=True, slots=True)
class Process:
    """One Envoy: its name (of a service; the second replica's is NAME-2), and what it listens on."""

    name: str
    port: int
    ops_port: int
    # Of its Unix sockets' paths, from its working directory.
    socket_prefix: str
    # The edge's.
    tls_port: int = 0

    @property
    def service(self) -> str:
        """What it is a replica of."""
        return service_of(self.name)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A cluster: a service and its replicas."""

    name: str
    grpc: bool
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """An operation as the edge routes it."""

    id: str
    method: str
    path: str
    match: str
    anonymous: bool
    timeout: float
    rate_limit: RateLimit
    operation_class: str
    answer: str | None


def routes() -> tuple[Route, ...]:
    """The public API's operations, fixed paths before those with parameters."""
    found = [
        Route(o.id, o.method, o.path, _match(o.path), o.anonymous, o.timeout, o.rate_limit, o.operation_class, o.answer)
        for o in OPERATIONS
    ]
    return tuple(sorted(found, key=lambda route: route.match.startswith("path_match_policy")))


def _match(path: str) -> str:
    if "{" not in path:
        return f'path: "{path}"'
    template = _PATH_PARAMETER.sub("*", path)
    kind = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
    return (
        "path_match_policy: {name: envoy.path.match.uri_template.uri_template_matcher, "
        f'typed_config: {{"@type": "{kind}", path_template: "{template}"}}}}'
    )


@lru_cache(maxsize=1)
def templates() -> Environment:
    """All of `mesh/templates`: one environment, which compiles each of them once."""
    return Environment(
        loader=PackageLoader("mesh"),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - YAML, not HTML
    )


def configuration(process: Process, site: Site, policies: Policies) -> str:
    """The Envoy configuration of one process.

    Raises:
        yaml.YAMLError: a template is broken; named by its line, which Envoy would not do.
    """
    entry = row(process.service)
    if isinstance(entry, Edge):
        template, own = "edge.yaml.j2", _edge_values(entry, process, site, policies)
    else:
        template, own = "service.yaml.j2", _service_values(entry, process, site)
    text = templates().get_template(template).render(_common_values(process, site, policies) | own)
    # Its events alone: what they would make is what takes the time, and Envoy makes it, too.
    deque(yaml.parse(text, _LOADER), maxlen=0)
    return text


def secret_files(service: str, site: Site) -> dict[str, str]:
    """What Envoy watches for new certificates (SDS from files): the contents by file name."""
    own = site.certificates / service
    pairs = {"workload": own} | ({"public": site.public_certificate} if service == EDGE.name else {})
    secrets: dict[str, Mapping[str, object]] = {
        name: {
            "tls_certificate": {
                "certificate_chain": {"filename": str(pair / "tls.crt")},
                "private_key": {"filename": str(pair / "tls.key")},
                "watched_directory": {"path": str(pair)},
            }
        }
        for name, pair in pairs.items()
    }
    secrets["trust"] = {
        "validation_context": {
            "trusted_ca": {"filename": str(own / "ca.crt")},
            "watched_directory": {"path": str(own)},
        }
    }
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    return {
        f"{name}.yaml": yaml.safe_dump({"resources": [{"@type": kind, "name": name, **secret}]})
        for name, secret in secrets.items()
    }


def _common_values(process: Process, site: Site, policies: Policies) -> dict[str, object]:
    return {
        # Whether a policy is to be there.
        "on": lambda policy: policy not in policies.without,
        "name": process.name,
        "service": process.service,
        "environment": site.environment,
        "version": site.version,
        "address": site.address,
        "port": process.port,
        "ops_address": site.ops_address,
        "ops_port": process.ops_port,
        # By their own names alone, where only this machine gets there: a page in its user's browser may have made a name of
        # its own point here (DNS rebinding). Elsewhere, networks say who comes, by names that we do not know.
        "ops_hosts": ["127.0.0.1", "localhost"] if site.ops_address == "127.0.0.1" else ["*"],
        "ops_networks": [_network(network) for network in site.ops_networks],
        "admin_socket": f"{process.socket_prefix}.admin.sock",
        "trust_domain": site.trust_domain,
        "sds": str(site.secret_files / process.service),
        "connection_seconds": policies.connection_seconds,
        "connection_drain": CONNECTION_DRAIN_SECONDS,
        "flush_seconds": FLUSH_SECONDS,
        "hop_streams": HOP_STREAMS,
        "hop_stream_window": HOP_STREAM_WINDOW,
        "hop_connection_window": HOP_CONNECTION_WINDOW,
        "max_connections": policies.max_connections,
        "max_heap_bytes": policies.max_heap_mib * 1024 * 1024,
        "public": process.service == EDGE.name,
        "statistics": statistics.kept(),
        "buckets": statistics.BUCKETS,
        "pressure_file": f"{process.socket_prefix}.pressure",
        "longest_answer": max(operation.timeout for operation in OPERATIONS) + EDGE_MARGIN,
    }


def _service_values(service: Service, process: Process, site: Site) -> dict[str, object]:
    return {
        "package": service.package,
        "grpc": service.serves_grpc,
        "lifespan": site.lifespan,
        "module": str(site.python_module),
        "peers": peers.rules(service),
        "request_id": "%REQ(X-REQUEST-ID)%",
        "ops_socket": f"{process.socket_prefix}.ops.sock",
        "egress_socket": f"{process.socket_prefix}.egress.sock",
        "upstreams": [_upstream(name, site) for name in service.upstreams],
    }


def _edge_values(edge: Edge, process: Process, site: Site, policies: Policies) -> dict[str, object]:
    operations = routes()
    return {
        "tls_port": process.tls_port,
        "public_port": site.public_port or process.tls_port,
        "upstreams": [_upstream(name, site) for name in edge.upstreams],
        "api": edge.api,
        "limiter": edge.limiter,
        "operations": operations,
        "known_paths": _allowed(operations),
        "edge_margin": EDGE_MARGIN,
        "client_streams": client_streams(policies),
        "max_headers": MAX_HEADERS,
        "max_header_kib": MAX_HEADER_KIB,
        "max_body_bytes": MAX_BODY_BYTES,
        "max_discarded_bytes": MAX_DISCARDED_BYTES,
        "token_issuer": site.token_issuer,
        "token_audience": site.token_audience,
        "token_seconds": ACCESS_TOKEN_SECONDS,
        "jwks_cache_seconds": JWKS_CACHE_SECONDS,
        "rate_limit_scale": policies.rate_limit_scale,
        "address_requests": ADDRESS_REQUESTS,
        "address_delay": _ADDRESS_DELAY,
        "address_status": _ADDRESS_STATUS,
        "cors_origins": policies.cors_origins,
        "cors_origins_pattern": "|".join(map(re.escape, policies.cors_origins)),
        "https_only": policies.https_only,
        "public_host": site.public_host,
        "otlp": _receiver(site.otlp_endpoint),
        "trace_key": site.trace_key,
        "trace_ratio": policies.trace_ratio,
        "trusted_proxies": [_network(network) for network in policies.trusted_proxies],
        "unauthenticated": (ERRORS["UNAUTHENTICATED"].slug, ERRORS["UNAUTHENTICATED"].title),
        "local_replies": [
            (code, status, ERRORS[reason].slug, ERRORS[reason].title, _REPLY_HEADERS.get(code, {}))
            for code, (status, reason) in _LOCAL_REPLIES.items()
        ],
    }


def _allowed(operations: tuple[Route, ...]) -> dict[str, str]:
    """What `Allow` says of each path."""
    found: dict[str, set[str]] = {}
    for operation in operations:
        methods = {"GET", "HEAD"} if operation.method == "GET" else {operation.method}
        found.setdefault(operation.match, set()).update(methods)
    return {match: ", ".join(sorted(methods)) for match, methods in found.items()}


def client_streams(policies: Policies) -> int:
    """How many streams a client may have open on a connection: one address that opens all it may leaves half of the heap."""
    connections = sum(policies.max_connections * part for part in ADDRESS_PARTS)
    for_each = policies.max_heap_mib * 1024 * _ADDRESS_HEAP / connections
    # RFC 9113, 6.5.2 asks for no more than a hundred.
    return max(1, min(100, int((for_each - _CONNECTION_KIB) / (_STREAM_KIB + MAX_HEADER_KIB))))


def _upstream(name: str, site: Site) -> Upstream:
    called = row(name)
    return Upstream(name, isinstance(called, Service) and called.serves_grpc, site.endpoints[name])


def _receiver(endpoint: str) -> Mapping[str, str | int] | None:
    """The parts of an OTLP receiver's URL; None without one."""
    if not endpoint:
        return None
    parts = urlsplit(endpoint)
    return {
        "authority": parts.netloc,
        "host": parts.hostname or "",
        # OTLP/HTTP's (opentelemetry.io/docs/specs/otlp).
        "port": parts.port or 4318,
        "path": parts.path.rstrip("/") + "/v1/traces",
    }


def _network(text: str) -> dict[str, object]:
    network = ip_network(text)
    return {"address": str(network.network_address), "length": network.prefixlen}
