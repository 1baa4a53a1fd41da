"""What the chart's templates are told of each row of the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from chassis.launch import DRAIN_SECONDS, STOP_SECONDS
from chassis.lifecycle import STARTUP_PATIENCE_SECONDS

from mesh.environment import of_service
from mesh.policies import Policies
from mesh.topology import CACHE, EDGE, SERVICES, STATE, TABLE, Edge, Service, row
from mesh.variables import of_policies

# A setting of a service, as the JSON Schema of its `Settings` class has it.
Setting = Mapping[str, object]
# All settings of each service, by variable.
Settings = Mapping[str, Mapping[str, Setting]]

# Where the templates of the chart mount what a service reads.
_PLACE = "/run/backend"
SECRETS = f"{_PLACE}/secrets"
# Which of the values has a Valkey server's address.
_VALKEY_VALUES = {STATE: "valkey", CACHE: "valkeyCache"}
# The edge is rendered with its default, so that no service may have another.
_FIXED = ("ACCESS_TOKEN_SECONDS",)


class Port(TypedDict):
    """A port, as a container, a Service and a network policy name it: at most 15 letters."""

    name: str
    port: int
    protocol: str


class Told(TypedDict, total=False):
    """A row, in words of Kubernetes."""

    name: str
    # Its name where underscores may not be: in DNS.
    host: str
    edge: bool
    ports: list[Port]
    opsPort: int
    # Where others call it.
    port: int
    upstreams: list[str]
    database: dict[str, str]
    # Which of the values has the address of its server.
    valkey: str
    tokens: str
    broker: bool
    mail: bool
    # Its variables, each a template of Helm's.
    environment: dict[str, str]
    # The keys that its Secret has to have, each mounted as a file; and those that it may have, which are variables.
    secrets: list[str]
    optionalSecrets: list[str]
    # Variables whose default production refuses, and why.
    notInProduction: dict[str, str]
    # How long its start may take, before it is given up.
    startupSeconds: int


def host(name: str) -> str:
    """A row's name as a part of the names of Kubernetes' objects."""
    return name.replace("_", "-")


def shutdown_seconds() -> int:
    """How long a process takes to end at most, from the signal on (`chassis.launch`)."""
    return int(DRAIN_SECONDS + STOP_SECONDS)


def told(settings: Settings) -> list[Told]:
    """Every row, those that are called before those that call."""
    return [_edge(entry) if isinstance(entry, Edge) else _service(entry, settings[entry.name]) for entry in TABLE]


def calls() -> frozenset[tuple[str, str, int]]:
    """Who calls whom at which port: all that network policies let through between our own processes."""
    return frozenset(
        (entry.name, called, found.port)
        for entry in TABLE
        for called in entry.upstreams
        if isinstance(found := row(called), Service)
    )


class _Cluster:
    """A cluster, as a place that services run at (`mesh.environment`): what they are told are templates of Helm's."""

    def database(self, _: Service) -> dict[str, str]:
        return {"DATABASE_URL": '{{ include "backend.databaseUrl" . }}', **_file("DATABASE_PASSWORD")}

    def valkey(self, _: Service, variable: str) -> dict[str, str]:
        return {f"{variable}_URL": '{{ include "backend.valkeyUrl" . }}', **_file(f"{variable}_PASSWORD")}

    def secret(self, _: Service, name: str) -> dict[str, str]:
        return _file(name.upper())

    def public_keys(self, _: Service) -> dict[str, str]:
        return {
            "TOKEN_ISSUER": "{{ .root.Values.tokens.issuer }}",
            "TOKEN_AUDIENCE": "{{ .root.Values.tokens.audience }}",
            "JWKS_FILE": f"{_PLACE}/jwks/jwks.json",
        }

    def signing_keys(self, _: Service) -> dict[str, str]:
        return {"SIGNING_KEYS_DIR": f"{_PLACE}/signing-keys"}

    def broker(self, service: Service) -> dict[str, str]:
        return {
            "NATS_URL": "{{ .root.Values.nats.url }}",
            "NATS_CERTIFICATES": f"{_PLACE}/certificates/{service.name}",
        }

    def mail_server(self, _: Service) -> dict[str, str]:
        return _file("SMTP_URL")

    def public_api(self, _: Service) -> dict[str, str]:
        return {}

    def everywhere(self, _: Service) -> dict[str, str]:
        return {
            "ENVIRONMENT": "{{ .root.Values.environment }}",
            "VERSION": "{{ .root.Chart.AppVersion }}",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "{{ .root.Values.telemetry.otlpEndpoint }}",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        }


def environment(service: Service, settings: Mapping[str, Setting]) -> dict[str, str]:
    """What the chart tells a service by itself; all other settings are values of the service."""
    policies = Policies()
    found = of_service(service, _Cluster(), policies)
    for name in of_policies(service, policies):
        found[name] = f'{{{{ include "backend.policyVariable" (dict "root" .root "name" "{name}") }}}}'
    # Secrets that no cell of the row asks for: its own.
    for name, setting in settings.items():
        if _is_secret(setting) and setting.get("required") and name not in found:
            found.setdefault(f"{name}_FILE", f"{SECRETS}/{name}")
    return found


def of_values(service: Service, settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """The settings of a service that are values of the chart, by variable."""
    taken = {*environment(service, settings), *_FIXED}
    return {name: setting for name, setting in settings.items() if name not in taken and not _is_secret(setting)}


def _file(secret: str) -> dict[str, str]:
    return {f"{secret}_FILE": f"{SECRETS}/{secret}"}


def _is_secret(setting: Setting) -> bool:
    return setting.get("format") == "password"


def _service(service: Service, settings: Mapping[str, Setting]) -> Told:
    told_of, mine = environment(service, settings), of_values(service, settings)
    in_files = [value.removeprefix(f"{SECRETS}/") for value in told_of.values() if value.startswith(SECRETS)]
    # What it cannot do without, it tries to reach at its start; for everything else it has a minute.
    backing = sum(cell is not None for cell in (service.database, service.valkey))
    found: Told = {
        "name": service.name,
        "host": host(service.name),
        "edge": False,
        "port": service.port,
        "opsPort": service.ops_port,
        "ports": [
            {"name": "grpc" if service.serves_grpc else "http2", "port": service.port, "protocol": "TCP"},
            {"name": "ops", "port": service.ops_port, "protocol": "TCP"},
        ],
        "upstreams": list(service.upstreams),
        "tokens": service.tokens,
        "broker": service.uses_broker,
        "mail": service.sends_mail,
        "environment": told_of,
        "secrets": in_files,
        "optionalSecrets": [
            name
            for name, setting in settings.items()
            if _is_secret(setting) and name not in told_of and name not in in_files
        ],
        "notInProduction": {
            name: str(setting["notInProduction"]) for name, setting in mine.items() if "notInProduction" in setting
        },
        "startupSeconds": int(backing * STARTUP_PATIENCE_SECONDS) + 60,
    }
    if service.database is not None:
        found["database"] = {"name": service.database.name, "role": service.database.role}
    if service.valkey is not None:
        found["valkey"] = _VALKEY_VALUES[service.valkey.server]
    return found


def _edge(edge: Edge) -> Told:
    return {
        "name": edge.name,
        "host": host(edge.name),
        "edge": True,
        "port": edge.port,
        "opsPort": edge.ops_port,
        "ports": [
            {"name": "http", "port": edge.port, "protocol": "TCP"},
            {"name": "https", "port": edge.tls_port, "protocol": "TCP"},
            {"name": "http3", "port": edge.tls_port, "protocol": "UDP"},
            {"name": "ops", "port": edge.ops_port, "protocol": "TCP"},
        ],
        "upstreams": list(edge.upstreams),
        "tokens": "",
        "broker": False,
        "mail": False,
        "environment": {},
        "secrets": [],
        "optionalSecrets": [],
        "notInProduction": {},
        "startupSeconds": 60,
    }


# The rows' names, the edge's among them, in the order in which the values have them.
NAMES = (*(service.name for service in SERVICES), EDGE.name)
