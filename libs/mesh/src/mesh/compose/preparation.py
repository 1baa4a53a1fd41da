"""What is done before anything starts, and again harmless: secrets, certificates and configurations, each into its volume.

What is there already stays: a secret is made once. Configurations are written anew every time, from what this start is told.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePath

from chassis.config import DEFAULT_TOKEN_AUDIENCE, DEFAULT_TOKEN_ISSUER
from chassis.private_files import write_private

from mesh import broker, valkey
from mesh.certificates import PUBLIC, Certificates
from mesh.compose import places
from mesh.envoy import Process, configuration, secret_files
from mesh.policies import Policies
from mesh.site import Endpoint, Site
from mesh.topology import (
    BROKER,
    BROKER_OPS_PORT,
    BROKER_PORT,
    OPERATORS,
    SERVICES,
    TABLE,
    VALKEY_SERVERS,
    Edge,
)
from mesh.valkey import ADMINISTRATOR

_ANYWHERE, _LOOPBACK = "0.0.0.0", "127.0.0.1"  # noqa: S104 - of a container's own network
# What a container of Valkey has its file in.
_VALKEY_DATA = "/data"


@dataclass(frozen=True, slots=True)
class Told:
    """What a start is told by the variables of compose.yaml.

    Attributes:
        environment, version: as the services are told.
        public_host: by which clients reach the edge: a name or an address.
        token_issuer, token_audience: as the services are told.
        ops_network: whose processes may read metrics (CIDR), beside the container itself.
        otlp_endpoint: where spans are sent; empty: nowhere.
        certificate_life: of a process's certificate.
    """

    environment: str = "development"
    version: str = "0.1.0"
    public_host: str = "localhost"
    token_issuer: str = DEFAULT_TOKEN_ISSUER
    token_audience: str = DEFAULT_TOKEN_AUDIENCE
    ops_network: str = "127.0.0.0/8"
    otlp_endpoint: str = ""
    certificate_life: timedelta = timedelta(hours=24)


def prepare(root: Path, told: Told, policies: Policies) -> Iterator[Path]:
    """Make what is missing below `root`, where the volumes are; each file that was written."""
    passwords = {name: secret(root / OPERATORS / "passwords" / name) for name in _password_names()}
    yield from _of_services(root, passwords)
    yield written(root / places.POSTGRES / "password", passwords[places.SUPERUSER])
    secret(root / places.GRAFANA / "password")
    certificates(root, told.public_host, told.certificate_life).ensure()
    where = site(told, trace_key(secret(root / OPERATORS / "trace-secret")))
    for row in TABLE:
        tls_port = row.tls_port if isinstance(row, Edge) else 0
        process = Process(row.name, row.port, row.ops_port, socket_prefix=f"run/{row.name}", tls_port=tls_port)
        yield written(root / row.name / "envoy.yaml", configuration(process, where, policies))
        for name, text in secret_files(row.name, where).items():
            yield written(root / row.name / name, text)
    for server in VALKEY_SERVERS:
        yield written(root / server / "valkey.conf", _valkey(server, passwords))
    yield written(root / BROKER / "accounts.conf", broker.accounts(places.TRUST_DOMAIN))
    yield written(root / BROKER / "nats.conf", broker.configuration(_broker()))


def certificates(root: Path, public_host: str, life: timedelta | None = None) -> Certificates:
    """Those of all processes; `public_host` is in the public listener's beside localhost."""
    local = ("localhost", _LOOPBACK, "::1")
    hosts = {PUBLIC: tuple(dict.fromkeys((public_host, *local))), BROKER: (BROKER, *local)}
    return Certificates(root / places.AUTHORITY, root, life, hosts)


def site(told: Told, trace_key: str) -> Site:
    """Compose, as the templates want to know it."""
    return Site(
        environment=told.environment,
        version=told.version,
        trust_domain=places.TRUST_DOMAIN,
        token_issuer=told.token_issuer,
        token_audience=told.token_audience,
        certificates=places.ROOT,
        public_certificate=places.own(PUBLIC),
        public_host=told.public_host,
        secret_files=places.ROOT,
        python_module=places.PYTHON_MODULE,
        address=_ANYWHERE,
        # Who may read there, says ops_networks.
        ops_address=_ANYWHERE,
        ops_networks=("127.0.0.0/8", told.ops_network),
        # A service's name resolves to all of its containers.
        endpoints={service.name: (Endpoint(service.name, service.port),) for service in SERVICES},
        otlp_endpoint=told.otlp_endpoint,
        trace_key=trace_key,
    )


def trace_key(of: str) -> str:
    """The end of the header's name that has a request traced; in small letters, as header names are compared."""
    return hashlib.sha256(of.encode()).hexdigest()[:32]


def secret(path: Path) -> str:
    """What a file has, or a new secret in it."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, secrets.token_urlsafe(32).encode())
    return path.read_text(encoding="utf-8")


def written(path: Path, text: str) -> Path:
    """A file with this text, which only the user reads. One that has it already is left alone: whoever watches it would act."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_private(path, text.encode())
    return path


def _password_names() -> list[str]:
    found = [places.SUPERUSER, ADMINISTRATOR]
    for service in SERVICES:
        found += [places.password(service, "database")] if service.database else []
        found += [places.password(service, "valkey")] if service.valkey else []
    return found


def _of_services(root: Path, passwords: Mapping[str, str]) -> Iterator[Path]:
    for service in SERVICES:
        for of, wanted in (("database", service.database), ("valkey", service.valkey)):
            if wanted is not None:
                name = places.password(service, of)
                yield written(root / service.name / name, passwords[name])
        for name in service.secrets:
            secret(root / service.name / name)
            yield root / service.name / name


def _valkey(server: str, passwords: Mapping[str, str]) -> str:
    users = {
        ADMINISTRATOR: passwords[ADMINISTRATOR],
        **{service.name: passwords[places.password(service, "valkey")] for service in valkey.of_server(server)},
    }
    lines = [
        "port 0",
        f"unixsocket {places.socket(server)}/{server}.sock",
        "unixsocketperm 700",
        *valkey.access_control(server, users),
        f"dir {_VALKEY_DATA}",
        'save ""',
        *valkey.keeping(server, valkey.MEMORY_MIB[server]),
    ]
    return "\n".join(lines) + "\n"


def _broker() -> broker.Server:
    return broker.Server(
        address=_ANYWHERE,
        port=BROKER_PORT,
        # Whether it works is asked within its container.
        monitor=f"{_LOOPBACK}:{BROKER_OPS_PORT}",
        certificates=places.own(BROKER),
        directory=PurePath("/data/streams"),
        accounts=PurePath("accounts.conf"),
    )
