"""Renders deploy/envoy for this stack from typed values."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import yaml
from contracts.errors import ERRORS
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from devstack.layout import ROOT, Layout
from devstack.secrets import PublicCertificate

_SOURCE = ROOT / "deploy" / "envoy"
# What Envoy itself answers, and the problem each status is.
_LOCAL_REPLIES = {
    400: "MALFORMED_REQUEST",
    404: "NOT_FOUND",
    408: "MALFORMED_REQUEST",
    413: "TOO_LARGE",
    431: "MALFORMED_REQUEST",
    501: "MALFORMED_REQUEST",
    429: "TOO_MANY_ATTEMPTS",
    504: "DEADLINE_EXCEEDED",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a process listens."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Upstream:
    """A cluster: a service and its replicas."""

    name: str
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """A process with Python inside."""

    name: str
    package: str
    codec: str
    upstreams: tuple[str, ...] = ()


SERVICES = (
    Service("user", "user_service", "HTTP2"),
    Service("order", "order_service", "HTTP2"),
    Service("bff", "bff", "HTTP2", ("user", "order")),
)


def render(layout: Layout, certificate: PublicCertificate) -> dict[str, Path]:
    """Write one configuration a process; their paths by process name."""
    layout.envoy.mkdir(parents=True, exist_ok=True)
    environment = Environment(
        loader=FileSystemLoader(_SOURCE),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - YAML, not HTML
    )
    paths = {}
    for service in SERVICES:
        text = environment.get_template("service.yaml.j2").render(
            name=service.name,
            package=service.package,
            codec=service.codec,
            module=str(_module()),
            address="127.0.0.1",
            port=layout.port(service.name),
            ops_port=layout.port(f"{service.name}_ops"),
            admin_port=layout.port(f"{service.name}_admin"),
            upstreams=[Upstream(name, (_endpoint(layout, name),)) for name in service.upstreams],
        )
        paths[service.name] = _write(layout, service.name, text)
    text = environment.get_template("edge.yaml.j2").render(
        environment="development",
        address="127.0.0.1",
        port=layout.port("public"),
        tls_port=layout.port("public_tls"),
        ops_port=layout.port("edge_ops"),
        admin_port=layout.port("edge_admin"),
        certificate=str(certificate.certificate),
        private_key=str(certificate.private_key),
        bff=(_endpoint(layout, "bff"),),
        local_replies=[(code, ERRORS[r].slug, ERRORS[r].title) for code, r in _LOCAL_REPLIES.items()],
    )
    return paths | {"edge": _write(layout, "edge", text)}


def _endpoint(layout: Layout, name: str) -> Endpoint:
    return Endpoint("127.0.0.1", layout.port(name))


def _module() -> Path:
    spec = importlib.util.find_spec("pyvoy._pyvoy")
    if spec is None or spec.origin is None:
        raise RuntimeError("pyvoy's native module is not installed")
    return Path(spec.origin)


def _write(layout: Layout, name: str, text: str) -> Path:
    # Parsed here, so that a mistake in a template is named by its line and not by Envoy.
    yaml.safe_load(text)
    path = layout.envoy / f"{name}.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return path
