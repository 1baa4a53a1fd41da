"""Renders deploy/envoy for this stack from typed values; routes, callers, timeouts and limits are the contracts'."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import yaml
from contracts.common.v1 import options_pb2
from contracts.envoy.service.ratelimit.v3 import rls_pb2
from contracts.errors import ERRORS
from contracts.http.operations import OPERATIONS, RateLimit
from contracts.order.v1 import catalog_pb2, order_pb2
from contracts.user.v1 import user_pb2
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from devstack.certificates import PUBLIC, TRUST_DOMAIN
from devstack.layout import ROOT, Layout
from devstack.options import Options

_SOURCE = ROOT / "deploy" / "envoy"
# How much longer the edge waits than the BFF, which gives its own answer first; seconds.
EDGE_MARGIN = 1.0
MAX_BODY_BYTES = 65536
JWKS_CACHE_SECONDS = 15
# What Envoy itself answers: the problem each status is, and the status it becomes. (The token filter says 403 for a
# wrong audience, which RFC 6750 calls an invalid token; an unknown transfer coding is the client's mistake.)
_LOCAL_REPLIES = {
    400: (400, "MALFORMED_REQUEST"),
    401: (401, "UNAUTHENTICATED"),
    403: (401, "UNAUTHENTICATED"),
    404: (404, "NOT_FOUND"),
    408: (408, "MALFORMED_REQUEST"),
    413: (413, "TOO_LARGE"),
    431: (431, "MALFORMED_REQUEST"),
    501: (400, "MALFORMED_REQUEST"),
    429: (429, "RATE_LIMITED"),
    504: (504, "DEADLINE_EXCEEDED"),
}
_REPLY_HEADERS = {
    401: {"www-authenticate": 'Bearer realm="backend", error="invalid_token"'},
    403: {"www-authenticate": 'Bearer realm="backend", error="invalid_token"'},
    503: {"retry-after": "1"},
}
_PATH_PARAMETER = re.compile(r"{\w+}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a process listens."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Upstream:
    """A cluster: a service and its replicas."""

    name: str
    grpc: bool
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class PeerRule:
    """Who may call the paths below a prefix."""

    prefix: str
    callers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """A process with Python inside."""

    name: str
    package: str
    peers: tuple[PeerRule, ...]
    upstreams: tuple[str, ...] = ()
    grpc: bool = True


@dataclass(frozen=True, slots=True)
class Route:
    """An operation as the edge routes it."""

    id: str
    method: str
    match: str
    anonymous: bool
    timeout: float
    rate_limit: RateLimit
    answer: str | None


def _contract_peers(*files: Any) -> tuple[PeerRule, ...]:
    """The rules of a gRPC service: its contracts' callers; health for callers and operators; reflection for operators."""
    rules = []
    callers: set[str] = set()
    for file in files:
        for service in file.DESCRIPTOR.services_by_name.values():
            named = tuple(service.GetOptions().Extensions[options_pb2.callers])
            callers.update(named)
            rules.append(PeerRule(f"/{service.full_name}/", named))
    return (
        *rules,
        PeerRule("/grpc.health.v1.Health/", (*sorted(callers), "ops")),
        PeerRule("/grpc.reflection.", ("ops",)),
    )


SERVICES = (
    Service("limiter", "limiter", _contract_peers(rls_pb2)),
    Service("user", "user_service", _contract_peers(user_pb2)),
    Service("order", "order_service", _contract_peers(order_pb2, catalog_pb2)),
    Service("bff", "bff", (PeerRule("/", ("edge",)),), ("user", "order"), grpc=False),
)  # fmt: skip
_BY_NAME = {service.name: service for service in SERVICES}


def routes() -> tuple[Route, ...]:
    """The public API's operations, fixed paths before those with parameters."""
    found = [Route(o.id, o.method, _match(o.path), o.anonymous, o.timeout, o.rate_limit, o.answer) for o in OPERATIONS]
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


def process_names(options: Options) -> tuple[str, ...]:
    """Every Envoy of a stack, in the order in which they start."""
    return (*(name for service in SERVICES for name in options.processes(service.name)), "edge")


def render(layout: Layout, options: Options, *, lifespan: bool = True) -> dict[str, Path]:
    """Write one configuration a process; their paths by process name.

    `lifespan` says whether the applications open their pools when Envoy starts; not to have a rendering validated.
    """
    layout.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    renderer = _Renderer(layout, options, layout, lifespan=lifespan)
    return {name: renderer.process(name) for name in process_names(options)}


def render_one(layout: Layout, options: Options, process: str, own: Layout) -> Path:
    """Write the configuration of one more process of a running stack, which listens on the ports of `own`."""
    return _Renderer(layout, options, own, lifespan=True).process(process)


class _Renderer:
    def __init__(self, layout: Layout, options: Options, own: Layout, *, lifespan: bool) -> None:
        self._layout = layout
        self._options = options
        self._own = own
        self._suffix = "" if own == layout else f"-at-{own.port_offset}"
        self._lifespan = lifespan
        self._directory = layout.envoy
        self._jinja = Environment(
            loader=FileSystemLoader(_SOURCE),
            undefined=StrictUndefined,
            autoescape=False,  # noqa: S701 - YAML, not HTML
        )
        self._jinja.globals["on"] = lambda policy: policy not in options.without

    def process(self, name: str) -> Path:
        service = name.partition("-")[0]
        return self._edge() if service == "edge" else self._service(_BY_NAME[service], name)

    def _service(self, service: Service, name: str) -> Path:
        values = {
            **self._common(name, service.name),
            "package": service.package,
            "grpc": service.grpc,
            "lifespan": self._lifespan,
            "module": str(_module()),
            "port": self._own.port(name),
            "peers": service.peers,
            "request_id": "%REQ(X-REQUEST-ID)%",
            "ops_socket": f"run/{name}{self._suffix}.ops.sock",
            "upstreams": [self._upstream(upstream) for upstream in service.upstreams],
        }
        return self._write(name, "service.yaml.j2", values)

    def _edge(self) -> Path:
        operations = routes()
        values = {
            **self._common("edge", "edge"),
            "port": self._own.port("public"),
            "tls_port": self._own.port("public_tls"),
            "upstreams": [self._upstream("bff"), self._upstream("limiter")],
            "operations": operations,
            "known_paths": list(dict.fromkeys(operation.match for operation in operations)),
            "edge_margin": EDGE_MARGIN,
            "max_body_bytes": MAX_BODY_BYTES,
            "token_issuer": "https://backend.local",
            "token_audience": "backend-api",
            "jwks_cache_seconds": JWKS_CACHE_SECONDS,
            "rate_limit_scale": self._options.rate_limit_scale,
            "cors_origins": self._options.cors_origins,
            "https_only": self._options.https_only,
            "trusted_proxies": [_network(network) for network in self._options.trusted_proxies],
            "local_replies": [
                (code, status, ERRORS[reason].slug, ERRORS[reason].title, _REPLY_HEADERS.get(code, {}))
                for code, (status, reason) in _LOCAL_REPLIES.items()
            ],
        }
        return self._write("edge", "edge.yaml.j2", values)

    def _common(self, name: str, service: str) -> dict[str, Any]:
        return {
            "name": name,
            "service": service,
            "environment": "development",
            "version": "0.1.0",
            "address": "127.0.0.1",
            "ops_address": "127.0.0.1",
            "ops_port": self._own.port(f"{name}_ops"),
            "ops_networks": [_network("127.0.0.0/8")],
            "admin_socket": f"run/{name}{self._suffix}.admin.sock",
            "trust_domain": TRUST_DOMAIN,
            "sds": str(self._secret_files(service)),
            "max_connections": self._options.max_connections,
            "max_heap_bytes": self._options.max_heap_mib * 1024 * 1024,
        }

    def _upstream(self, service: str) -> Upstream:
        endpoints = (Endpoint("127.0.0.1", self._layout.port(n)) for n in self._options.processes(service))
        return Upstream(service, grpc=_BY_NAME[service].grpc, endpoints=tuple(endpoints))

    def _secret_files(self, service: str) -> Path:
        """What Envoy watches for new certificates (SDS from files)."""
        directory = self._directory / "sds" / service
        directory.mkdir(parents=True, exist_ok=True)
        certificates = self._layout.certificates
        own = certificates / service
        kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
        pairs = {"workload": own} | ({"public": certificates / PUBLIC} if service == "edge" else {})
        files: dict[str, Mapping[str, Any]] = {
            name: {
                "tls_certificate": {
                    "certificate_chain": {"filename": str(pair / "tls.crt")},
                    "private_key": {"filename": str(pair / "tls.key")},
                    "watched_directory": {"path": str(pair)},
                }
            }
            for name, pair in pairs.items()
        }
        files["trust"] = {
            "validation_context": {
                "trusted_ca": {"filename": str(own / "ca.crt")},
                "watched_directory": {"path": str(own)},
            }
        }
        for name, secret in files.items():
            resource = {"@type": kind, "name": name, **secret}
            (directory / f"{name}.yaml").write_text(yaml.safe_dump({"resources": [resource]}))
        return directory

    def _write(self, name: str, template: str, values: Mapping[str, Any]) -> Path:
        text = self._jinja.get_template(template).render(values)
        # Parsed here, so that a mistake in a template is named by its line and not by Envoy.
        try:
            yaml.safe_load(text)
        finally:
            self._directory.mkdir(parents=True, exist_ok=True)
            path = self._directory / f"{name}{self._suffix}.yaml"
            path.write_text(text)
            path.chmod(0o600)
        return path


def _network(text: str) -> dict[str, Any]:
    network = ip_network(text)
    return {"address": str(network.network_address), "length": network.prefixlen}


def _module() -> Path:
    spec = importlib.util.find_spec("pyvoy._pyvoy")
    if spec is None or spec.origin is None:
        raise RuntimeError("pyvoy's native module is not installed")
    return Path(spec.origin)
