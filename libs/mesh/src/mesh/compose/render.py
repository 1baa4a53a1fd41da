"""compose.yaml, and the files that it mounts (deploy/compose), as they follow from the table of services."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import yaml
from chassis.config import DEFAULT_TOKEN_AUDIENCE, DEFAULT_TOKEN_ISSUER
from chassis.version import __version__

from mesh import databases, valkey
from mesh.certificates import PUBLIC, WORKLOADS
from mesh.compose import places
from mesh.environment import of_service
from mesh.envoy import templates
from mesh.observability.scraping import prometheus
from mesh.policies import Policies
from mesh.topology import (
    BROKER_OPS_PORT,
    BROKER_PORT,
    EDGE,
    SERVICES,
    STATE,
    TABLE,
    VALKEY_SERVERS,
    Row,
    Service,
)

FOLDER = PurePosixPath("deploy/compose")
BASE_IMAGE = "docker.io/library/python:3.12-slim-bookworm"
# Of the network by which metrics are read. Two on one machine need two.
OPS_NETWORK = "10.213.7.0/24"
_BANNER = "# Generated from libs/mesh/src/mesh/compose. Do not edit; run `make generate`.\n"
_COMPLETED, _HEALTHY = "service_completed_successfully", "service_healthy"


@dataclass(frozen=True, slots=True)
class Container:
    """The container of a row."""

    name: str
    # None: as the shell or .env has it, and else not at all.
    environment: dict[str, str | None]
    networks: list[str]
    ports: list[str]
    volumes: list[str]
    depends_on: dict[str, str]


def files() -> dict[str, str]:
    """Their texts, by path from the root of the repository."""
    return {
        "compose.yaml": _compose(),
        str(FOLDER / "prometheus.yml"): _BANNER
        + prometheus(
            {row.name: f"{row.name}:{row.ops_port}" for row in TABLE},
            rules="/etc/prometheus/rules.yml",
            alertmanagers=("alertmanager:9093",),
        ),
        str(FOLDER / "alertmanager.yml"): _BANNER + _yaml(_ALERTMANAGER),
        str(FOLDER / "collector.yaml"): _BANNER + _yaml(_COLLECTOR),
    }


def _compose() -> str:
    signer = next(service for service in SERVICES if service.tokens == "signs")
    place = places.Compose()
    return (
        templates()
        .get_template("compose.yaml.j2")
        .render(
            version=__version__,
            token_issuer=DEFAULT_TOKEN_ISSUER,
            token_audience=DEFAULT_TOKEN_AUDIENCE,
            ops_network=OPS_NETWORK,
            base=BASE_IMAGE,
            user=places.USER,
            root=places.ROOT,
            superuser=places.SUPERUSER,
            volumes=places.VOLUMES,
            certificates=(*WORKLOADS, PUBLIC),
            keys={"signer": signer.name, "environment": {**place.public_keys(signer), **place.signing_keys(signer)}},
            postgres_settings=databases.SERVER_SETTINGS | {"listen_addresses": "", "unix_socket_permissions": "0700"},
            valkeys=[
                {"name": name, "keeps": name == STATE, "limit_mib": 2 * valkey.MEMORY_MIB[name]}
                for name in VALKEY_SERVERS
            ],
            broker_port=BROKER_PORT,
            broker_ops_port=BROKER_OPS_PORT,
            rows=[container(row) for row in TABLE],
        )
        + "\n"
    )


def container(row: Row) -> Container:
    """What runs a row."""
    if not isinstance(row, Service):
        published = [
            ("${HTTP_PORT:-" + str(EDGE.port) + "}", EDGE.port, ""),
            ("${HTTPS_PORT:-" + str(EDGE.tls_port) + "}", EDGE.tls_port, ""),
            ("${HTTPS_PORT:-" + str(EDGE.tls_port) + "}", EDGE.tls_port, "/udp"),
        ]
        return Container(
            name=row.name,
            environment={"OPS_PORT": str(row.ops_port)},
            networks=["edge", "mesh", "ops"],
            ports=[f"${{LISTEN_ADDRESS:-127.0.0.1}}:{outer}:{inner}{kind}" for outer, inner, kind in published],
            volumes=_read(row.name, PUBLIC),
            depends_on={"prepare": _COMPLETED},
        )
    return Container(
        name=row.name,
        environment={"OPS_PORT": str(row.ops_port), **_environment(row)},
        networks=[
            "mesh",
            *(["data"] if row.uses_broker else []),
            "ops",
            # Whom it gives mails to is elsewhere.
            *(["outside"] if row.sends_mail else []),
        ],
        ports=[],
        volumes=_read(
            row.name,
            *([places.PUBLIC_KEYS] if row.tokens else []),
            *([f"{places.POSTGRES}-socket"] if row.database else []),
            *([f"{row.valkey.server}-socket"] if row.valkey else []),
        ),
        depends_on={
            "prepare": _COMPLETED,
            **({"keys": _COMPLETED} if row.tokens else {}),
            **({"migrations": _COMPLETED} if row.database else {}),
            **({row.valkey.server: _HEALTHY} if row.valkey else {}),
            **({"streams": _COMPLETED} if row.uses_broker else {}),
        },
    )


def _read(*names: str) -> list[str]:
    return [f"{name}:{places.ROOT}/{name}:ro" for name in names]


def _environment(service: Service) -> dict[str, str | None]:
    found: dict[str, str | None] = dict(of_service(service, places.Compose(), Policies()))
    # What policies have is for whoever starts it to say otherwise.
    for name in service.policies:
        default = found.get(name)
        found[name] = None if default is None else f"${{{name}:-{default}}}"
    return found


def _yaml(document: object) -> str:
    return yaml.safe_dump(document, sort_keys=False)


# Whom it tells is for whoever runs it to say: it groups, and keeps what it has for its page.
_ALERTMANAGER = {
    "route": {
        "receiver": "page",
        "group_by": ["alertname", "service"],
        "group_wait": "10s",
        "group_interval": "1m",
        "repeat_interval": "4h",
    },
    "receivers": [{"name": "page"}],
}
_COLLECTOR = {
    "receivers": {"otlp": {"protocols": {"http": {"endpoint": "0.0.0.0:4318"}}}},
    "processors": {
        "memory_limiter": {"check_interval": "1s", "limit_mib": 200, "spike_limit_mib": 50},
        "batch": {"timeout": "1s", "send_batch_max_size": 2048},
    },
    "exporters": {"otlp/jaeger": {"endpoint": "jaeger:4317", "tls": {"insecure": True}}},
    "service": {
        "pipelines": {
            "traces": {
                "receivers": ["otlp"],
                "processors": ["memory_limiter", "batch"],
                "exporters": ["otlp/jaeger"],
            }
        }
    },
}
