"""The Envoys of one stack on this machine: their names, ports and files."""

from __future__ import annotations

import importlib.util
from pathlib import Path, PurePath

from chassis.config import TokenSettings
from mesh import checks
from mesh.certificates import PUBLIC, TRUST_DOMAIN
from mesh.envoy import Process, configuration, secret_files
from mesh.site import Endpoint, Site
from mesh.topology import CONSOLE, EDGE, SERVICES, TABLE

from devstack.layout import Layout
from devstack.options import Options
from devstack.secrets import load_or_create

_LOOPBACK = "127.0.0.1"


def render(layout: Layout, options: Options, *, lifespan: bool = True) -> dict[str, Path]:
    """Write one configuration a process; their paths by process name.

    `lifespan` says whether the applications open their pools when Envoy starts; not to have a rendering validated.
    """
    prepare(layout, options)
    where = site(layout, options, lifespan=lifespan)
    return {name: render_own(layout, options, name, where) for name in options.every_process}


def prepare(layout: Layout, options: Options) -> None:
    """Make what all configurations refer to: the directory of the sockets, and what is watched for new certificates.

    Raises:
        TableError: the table of services is wrong.
    """
    checks.require()
    layout.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    where = site(layout, options)
    for service in (row.name for row in TABLE):
        directory = Path(where.secret_files) / service
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in secret_files(service, where).items():
            (directory / name).write_text(text, encoding="utf-8")


def render_own(layout: Layout, options: Options, name: str, where: Site | None = None) -> Path:
    """Write the configuration of one of the stack's processes."""
    process = _process(layout, name, f"run/{name}")
    return _write(layout, name, configuration(process, where or site(layout, options), options))


def render_one(layout: Layout, options: Options, name: str, own: Layout, where: Site | None = None) -> Path:
    """Write the configuration of one more process of a running stack, which listens on the ports of `own`."""
    named = f"{name}-at-{own.port_offset}"
    process = _process(own, name, f"run/{named}")
    return _write(layout, named, configuration(process, where or site(layout, options), options))


def site(layout: Layout, options: Options, *, lifespan: bool = True) -> Site:
    """This machine, as the templates want to know it."""
    return Site(
        environment="development",
        version="0.1.0",
        trust_domain=TRUST_DOMAIN,
        token_issuer=TokenSettings.model_fields["token_issuer"].default,
        token_audience=TokenSettings.model_fields["token_audience"].default,
        certificates=layout.certificates,
        public_certificate=layout.certificates / PUBLIC,
        public_host="localhost",
        secret_files=layout.envoy / "sds",
        python_module=python_module(),
        address=_LOOPBACK,
        ops_address=_LOOPBACK,
        ops_networks=("127.0.0.0/8",),
        endpoints={
            service.name: tuple(Endpoint(_LOOPBACK, layout.port(name)) for name in options.processes(service.name))
            for service in SERVICES
        },
        lifespan=lifespan,
        otlp_endpoint=otlp_endpoint(layout, options),
        trace_key=load_or_create(layout.secrets).trace_key,
    )


def otlp_endpoint(layout: Layout, options: Options) -> str:
    """Where spans are sent: to the console, or to a receiver of one's own."""
    return options.otlp_endpoint or f"http://{_LOOPBACK}:{layout.port(CONSOLE)}"


def _process(layout: Layout, name: str, socket_prefix: str) -> Process:
    edge = name == EDGE.name
    return Process(
        name=name,
        port=layout.port("public" if edge else name),
        ops_port=layout.port(f"{name}_ops"),
        socket_prefix=socket_prefix,
        tls_port=layout.port("public_tls") if edge else 0,
    )


def _write(layout: Layout, name: str, text: str) -> Path:
    path = layout.envoy / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def python_module() -> PurePath:
    """Pyvoy's native module, which an Envoy loads."""
    spec = importlib.util.find_spec("pyvoy._pyvoy")
    if spec is None or spec.origin is None:
        raise RuntimeError("pyvoy's native module is not installed")
    return PurePath(spec.origin)
