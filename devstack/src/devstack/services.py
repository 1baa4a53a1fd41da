"""How the services of a stack are configured: their environments."""

from __future__ import annotations

from dataclasses import dataclass

from mesh import environment as environments
from mesh.topology import CONSOLE, MAILBOX, STATE, Service, row
from mesh.valkey import ADMINISTRATOR

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
    return environments.of_service(service, _Stack(layout, secrets, options), options)


@dataclass(frozen=True, slots=True)
class _Stack:
    """A stack, as a place (`mesh.environment`)."""

    layout: Layout
    secrets: Secrets
    options: Options

    def secret(self, service: Service, name: str) -> dict[str, str]:
        return {name.upper(): self.secrets.own(service.name, name)}

    def valkey(self, service: Service, variable: str) -> dict[str, str]:
        if service.valkey is None:
            return {}
        return {
            f"{variable}_URL": f"unix://{service.name}@{valkey.socket(self.layout, service.valkey.server)}?db=0",
            f"{variable}_PASSWORD_FILE": str(password_file(self.layout.secrets, valkey_password(service.name))),
        }

    def database(self, service: Service) -> dict[str, str]:
        own = postgres.database_of(service.name, self.secrets)
        return {
            "DATABASE_URL": own.url(self.layout, with_password=False),
            "DATABASE_PASSWORD_FILE": str(password_file(self.layout.secrets, database_password(service.name))),
        }

    def public_keys(self, _: Service) -> dict[str, str]:
        return {"JWKS_FILE": str(keys.jwks_file(self.layout))}

    def signing_keys(self, _: Service) -> dict[str, str]:
        return {
            "SIGNING_KEYS_DIR": str(keys.directory(self.layout)),
            "SIGNING_KEY_ACTIVATION_SECONDS": str(keys.ACTIVATION_SECONDS),
        }

    def broker(self, service: Service) -> dict[str, str]:
        return {
            "NATS_URL": broker.url(self.layout),
            "NATS_CERTIFICATES": str(self.layout.certificates / service.name),
        }

    def mail_server(self, _: Service) -> dict[str, str]:
        return {
            "SMTP_URL": f"smtp://127.0.0.1:{self.layout.port(MAILBOX)}?starttls=never",
            # The mailbox is on this machine: a mail of a process that was killed is sent again the sooner.
            "MAIL_DEADLINE_SECONDS": "10",
            "SMTP_TIMEOUT_SECONDS": "4",
        }

    def public_api(self, _: Service) -> dict[str, str]:
        return {}

    def everywhere(self, _: Service) -> dict[str, str]:
        if "tracing" in self.options.without:
            return {}
        endpoint = self.options.otlp_endpoint
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint or f"http://127.0.0.1:{self.layout.port(CONSOLE)}",
            # The console is on this machine.
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip" if endpoint else "none",
            "TRACER": self.options.tracer,
        }
