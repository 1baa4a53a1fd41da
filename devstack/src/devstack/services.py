"""How the services of a stack are configured: their environments."""

from __future__ import annotations

from mesh.topology import CACHE, CONSOLE, STATE, Service, row
from mesh.valkey import ADMINISTRATOR
from mesh.variables import of_policies

from devstack import broker, keys, postgres, valkey
from devstack.layout import Layout
from devstack.options import Options
from devstack.secrets import Secrets, database_password, password_file, valkey_password


def valkey_url(layout: Layout, secrets: Secrets, user: str = ADMINISTRATOR, server: str = "") -> str:
    """How a service connects to its Valkey server, or an administrator to either (the state server by default)."""
    service = None if user == ADMINISTRATOR else row(user)
    own = service.valkey.server if isinstance(service, Service) and service.valkey else STATE
    return f"unix://{user}:{secrets.valkey_of(user)}@{valkey.socket(layout, server or own)}?db=0"


def environment(name: str, layout: Layout, secrets: Secrets, options: Options) -> dict[str, str]:
    """The configuration of a service, as docs/configuration.md describes it; the edge has none."""
    service = row(name)
    if not isinstance(service, Service):
        return {}
    own = {secret.upper(): secrets.own(name, secret) for secret in service.secrets}
    parts = (
        _valkey(service, layout),
        _database(service, layout, secrets),
        _tokens(service, layout),
        _telemetry(layout, options),
        _events(service, layout),
    )
    for part in parts:
        own |= part
    return own | of_policies(service, options)


def _valkey(service: Service, layout: Layout) -> dict[str, str]:
    if service.valkey is None:
        return {}
    server = service.valkey.server
    variable = "CACHE" if server == CACHE else "VALKEY"
    return {
        f"{variable}_URL": f"unix://{service.name}@{valkey.socket(layout, server)}?db=0",
        f"{variable}_PASSWORD_FILE": str(password_file(layout.secrets, valkey_password(service.name))),
    }


def _database(service: Service, layout: Layout, secrets: Secrets) -> dict[str, str]:
    if service.database is None:
        return {}
    own = postgres.database_of(service.name, secrets)
    return {
        "DATABASE_URL": own.url(layout, with_password=False),
        "DATABASE_PASSWORD_FILE": str(password_file(layout.secrets, database_password(service.name))),
    }


def _telemetry(layout: Layout, options: Options) -> dict[str, str]:
    if "tracing" in options.without:
        return {}
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": options.otlp_endpoint or f"http://127.0.0.1:{layout.port(CONSOLE)}",
        # The console is on this machine.
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip" if options.otlp_endpoint else "none",
        "TRACER": options.tracer,
    }


def _events(service: Service, layout: Layout) -> dict[str, str]:
    if not service.uses_broker:
        return {}
    return {"NATS_URL": broker.url(layout), "NATS_CERTIFICATES": str(layout.certificates / service.name)}


def _tokens(service: Service, layout: Layout) -> dict[str, str]:
    verifies = {"JWKS_FILE": str(keys.jwks_file(layout))}
    signs = {
        "SIGNING_KEYS_DIR": str(keys.directory(layout)),
        "SIGNING_KEY_ACTIVATION_SECONDS": str(keys.ACTIVATION_SECONDS),
    }
    return {"verifies": verifies, "signs": verifies | signs}.get(service.tokens, {})
