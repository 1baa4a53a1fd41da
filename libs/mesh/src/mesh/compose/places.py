"""Where everything is in the containers of compose.yaml: volumes by name, all mounted below /etc/backend.

A process has a volume of its own with what it alone may read: its key and certificate, passwords and configuration. A file is there
at the same path in whatever container may see it. PostgreSQL and Valkey have no network: who may use one has the directory of its
Unix socket, and a password.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from chassis.config import DEFAULT_TOKEN_AUDIENCE, DEFAULT_TOKEN_ISSUER

from mesh.certificates import PUBLIC, WORKLOADS
from mesh.topology import BROKER, BROKER_PORT, CACHE, OPERATORS, STATE, VALKEY_SERVERS, Service

# The user of every process, of our images and of all others: what is one's alone belongs to it.
USER = 10001
ROOT = PurePosixPath("/etc/backend")
# Who signs; nobody reads it but those who make certificates.
AUTHORITY = "authority"
POSTGRES, SUPERUSER = "postgres", "postgres"
# The public halves of the keys that sign access tokens.
PUBLIC_KEYS = "jwks"
GRAFANA = "grafana"
# Of the containers that keep data.
_DATA = tuple(f"{name}-data" for name in (POSTGRES, STATE, BROKER, "prometheus", "alertmanager", GRAFANA))
VOLUMES = (
    AUTHORITY,
    *WORKLOADS,
    PUBLIC,
    PUBLIC_KEYS,
    POSTGRES,
    *VALKEY_SERVERS,
    GRAFANA,
    *_DATA,
    *(f"{server}-socket" for server in (POSTGRES, *VALKEY_SERVERS)),
)
TRUST_DOMAIN = "backend.local"
# What Envoy loads to have Python inside: one name in every services' image (deploy/docker/services.Dockerfile).
PYTHON_MODULE = PurePosixPath("/app/pyvoy.so")


def own(name: str, file: str = "") -> PurePosixPath:
    """A file of a process's own volume."""
    return ROOT / name / file


def socket(server: str) -> PurePosixPath:
    """The directory with the Unix socket of PostgreSQL or a Valkey server, for who uses it."""
    return ROOT / f"{server}-socket"


def password(service: Service, of: str) -> str:
    """What the file with a service's password is called; `of`: database or valkey."""
    return f"{service.name}-{of}-password"


class Compose:
    """Compose, as a place that services run at (`mesh.environment`)."""

    def database(self, service: Service) -> Mapping[str, str]:
        """See `Place`."""
        if service.database is None:
            return {}
        return {
            "DATABASE_URL": f"postgresql://{service.database.role}@/{service.database.name}?host={socket(POSTGRES)}",
            "DATABASE_PASSWORD_FILE": str(own(service.name, password(service, "database"))),
        }

    def valkey(self, service: Service, variable: str) -> Mapping[str, str]:
        """See `Place`."""
        server = CACHE if variable == "CACHE" else STATE
        return {
            f"{variable}_URL": f"unix://{service.name}@{socket(server)}/{server}.sock?db=0",
            f"{variable}_PASSWORD_FILE": str(own(service.name, password(service, "valkey"))),
        }

    def secret(self, service: Service, name: str) -> Mapping[str, str]:
        """See `Place`."""
        return {f"{name.upper()}_FILE": str(own(service.name, name))}

    def public_keys(self, _: Service) -> Mapping[str, str]:
        """See `Place`."""
        return {"JWKS_FILE": str(own(PUBLIC_KEYS, "jwks.json"))} | {
            name: f"${{{name}:-{default}}}"
            for name, default in (
                ("TOKEN_ISSUER", DEFAULT_TOKEN_ISSUER),
                ("TOKEN_AUDIENCE", DEFAULT_TOKEN_AUDIENCE),
            )
        }

    def signing_keys(self, service: Service) -> Mapping[str, str]:
        """See `Place`."""
        return {"SIGNING_KEYS_DIR": str(own(service.name, "signing-keys")), "SIGNING_KEY_ACTIVATION_SECONDS": "30"}

    def broker(self, service: Service) -> Mapping[str, str]:
        """See `Place`."""
        return {"NATS_URL": f"tls://{BROKER}:{BROKER_PORT}", "NATS_CERTIFICATES": str(own(service.name))}

    def mail_server(self, _: Service) -> Mapping[str, str]:
        """See `Place`."""
        # Until whoever runs it names one, mails wait: nothing has that name (RFC 2606), and production refuses it.
        return {
            "SMTP_URL": "${SMTP_URL:-smtp://mail.invalid:25?starttls=never}",
            "MAIL_FROM": "${MAIL_FROM:-Backend <no-reply@backend.local>}",
        }

    def public_api(self, _: Service) -> Mapping[str, str]:
        """See `Place`."""
        return {"SECURITY_CONTACT": "${SECURITY_CONTACT:-mailto:security@backend.local}"}

    def everywhere(self, _: Service) -> Mapping[str, str]:
        """See `Place`."""
        return {
            "ENVIRONMENT": "${ENVIRONMENT:-development}",
            "VERSION": "${VERSION:-0.1.0}",
            "LOG_LEVEL": "${LOG_LEVEL:-info}",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "${OTLP_ENDPOINT:-}",
        }


OPERATORS_PASSWORDS = own(OPERATORS, "passwords")
