"""How a service is configured, wherever it runs: the variables of docs/configuration.md that follow from its row.

What differs between one machine and Compose is where things are, which a `Place` says. What a place does not have, it leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from mesh.policies import Policies
from mesh.topology import CACHE, EDGE, Service
from mesh.variables import of_policies


class Place(Protocol):
    """Where what a service needs is, at one place that services run at."""

    def database(self, service: Service) -> Mapping[str, str]:
        """DATABASE_URL without a password, and DATABASE_PASSWORD_FILE; asked of a service with a database."""

    def valkey(self, service: Service, variable: str) -> Mapping[str, str]:
        """The same of its Valkey server, by variables that begin with VALKEY or CACHE."""

    def secret(self, service: Service, name: str) -> Mapping[str, str]:
        """One of the secrets that its row names."""

    def public_keys(self, service: Service) -> Mapping[str, str]:
        """JWKS_FILE; asked of who verifies access tokens."""

    def signing_keys(self, service: Service) -> Mapping[str, str]:
        """SIGNING_KEYS_DIR and what belongs to it; asked of who signs them."""

    def broker(self, service: Service) -> Mapping[str, str]:
        """NATS_URL and NATS_CERTIFICATES; asked of who publishes or consumes events."""

    def mail_server(self, service: Service) -> Mapping[str, str]:
        """SMTP_URL, and SMTP_PASSWORD_FILE where it has a user; asked of who sends mail."""

    def public_api(self, service: Service) -> Mapping[str, str]:
        """SECURITY_CONTACT, where its service's own settings do not say it; asked of who serves the public API."""

    def everywhere(self, service: Service) -> Mapping[str, str]:
        """What every service is told there: where spans are sent, for one."""


def of_service(service: Service, place: Place, policies: Policies) -> dict[str, str]:
    """The variables of a service."""
    found: dict[str, str] = {}
    for name in service.secrets:
        found |= place.secret(service, name)
    if service.valkey is not None:
        found |= place.valkey(service, "CACHE" if service.valkey.server == CACHE else "VALKEY")
    if service.database is not None:
        found |= place.database(service)
    if service.tokens in ("verifies", "signs"):
        found |= place.public_keys(service)
    if service.tokens == "signs":
        found |= place.signing_keys(service)
    found |= place.everywhere(service)
    if service.uses_broker:
        found |= place.broker(service)
    if service.sends_mail:
        found |= place.mail_server(service)
    if service.name == EDGE.api:
        found |= place.public_api(service)
    return found | of_policies(service, policies)
