"""The User service's composition root: the only place where its objects are built and wired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from chassis.admission import Admission
from chassis.audit.retention import Retention
from chassis.cache import VersionedCache, stored_under
from chassis.config import load
from chassis.cursors import CursorSigner
from chassis.database import Database
from chassis.events.nats import Nats
from chassis.events.relay import Relay
from chassis.grpc.methods import Server
from chassis.grpc.server import GrpcApplication
from chassis.grpc.serving import serve_contract
from chassis.ids import uuid7
from chassis.lifecycle import Composition, ServiceProcess, patiently
from chassis.logging import configure
from chassis.password_files import following
from chassis.tokens import TokenVerifier, token_verifier
from chassis.tracing.process import Tracing
from chassis.valkey import PipelinedClient
from contracts.user.v1 import audit_pb2, contact_pb2, session_pb2, user_pb2
from contracts.user.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from contracts.user.v1.contact_pb2_grpc import add_ContactServiceServicer_to_server
from contracts.user.v1.session_pb2_grpc import add_SessionServiceServicer_to_server
from contracts.user.v1.user_pb2_grpc import add_UserServiceServicer_to_server

from user.handlers.audit import AuditHandlers
from user.handlers.contact import ContactHandlers
from user.handlers.sessions import SessionHandlers
from user.handlers.users import UserHandlers
from user.repository.login_throttle import LoginThrottle
from user.repository.sessions import SessionStore
from user.repository.signing_keys import SigningKeys
from user.service.access_tokens import AccessTokens
from user.service.credentials import Credentials
from user.service.devices import Devices
from user.service.password_rules import PasswordRules
from user.service.passwords import Passwords
from user.service.refresh_tokens import RefreshTokens
from user.service.sessions import Sessions
from user.service.users import UserUseCases
from user.settings import Settings


@dataclass(frozen=True, slots=True)
class Servicers:
    """Everything the service answers, and its use cases for the command line."""

    users: UserHandlers
    sessions: SessionHandlers
    audit: AuditHandlers
    contact: ContactHandlers
    use_cases: UserUseCases
    tokens: TokenVerifier
    admission: Admission

    def add_to(self, server: Server) -> None:
        """Register on a server: ours, or grpcio's own."""
        services = (
            user_pb2.DESCRIPTOR.services_by_name["UserService"],
            session_pb2.DESCRIPTOR.services_by_name["SessionService"],
            audit_pb2.DESCRIPTOR.services_by_name["AuditService"],
            contact_pb2.DESCRIPTOR.services_by_name["ContactService"],
        )
        with serve_contract(server, *services, admission=self.admission, tokens=self.tokens) as contract:
            add_UserServiceServicer_to_server(self.users, contract)
            add_SessionServiceServicer_to_server(self.sessions, contract)
            add_AuditServiceServicer_to_server(self.audit, contract)
            add_ContactServiceServicer_to_server(self.contact, contract)


def build(settings: Settings, database: Database, client: PipelinedClient, passwords: Passwords) -> Servicers:
    """Wire the service over an open database and Valkey client.

    Raises:
        SigningKeyError: the signing keys are missing or unusable.
    """
    cache = VersionedCache(client, stored_under(user_pb2.User), settings.user_cache_seconds)
    secret = settings.refresh_token_secret.get_secret_value()
    sessions = Sessions(
        database=database,
        store=SessionStore(
            client,
            now=_now,
            lifetime=timedelta(days=settings.session_days),
            idle=timedelta(days=settings.session_idle_days),
        ),
        access_tokens=AccessTokens(
            SigningKeys(settings.signing_keys_dir, settings.signing_key_activation_seconds),
            issuer=settings.token_issuer,
            audience=settings.token_audience,
            lifetime=settings.access_token_seconds,
            new_id=uuid7,
        ),
        refresh_tokens=RefreshTokens(secret),
        crowd=settings.sessions_a_day,
        grace=timedelta(seconds=settings.refresh_grace_seconds),
        now=_now,
        new_id=uuid7,
    )
    rules = PasswordRules(settings.service_names.split(","))
    use_cases = UserUseCases(
        database=database,
        cache=cache,
        passwords=passwords,
        rules=rules,
        sessions=sessions,
        now=_now,
        new_id=uuid7,
    )
    credentials = Credentials(
        database=database,
        cache=cache,
        passwords=passwords,
        rules=rules,
        throttle=LoginThrottle(client),
        devices=Devices(secret),
        sessions=sessions,
        now=_now,
    )
    cursors = CursorSigner(settings.cursor_secret.get_secret_value())
    return Servicers(
        UserHandlers(use_cases, credentials, cursors),
        SessionHandlers(sessions, credentials, use_cases),
        AuditHandlers(database),
        ContactHandlers(use_cases),
        use_cases,
        token_verifier(settings),
        Admission(enabled=settings.admission),
    )


def _now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def compose() -> AsyncIterator[Composition]:
    """Open the pools and wire the service; everything closed again at the end."""
    async with opened(load(Settings)) as service:
        application = GrpcApplication()
        service.servicers.add_to(application)
        broker = Nats.configured("user", service.settings)
        yield Composition(
            application,
            service.servicers.admission,
            readiness={"postgresql": service.database.ping, "valkey": service.client.ping},
            details={
                "valkey": service.client.accepts_writes(stored_under(user_pb2.User)),
                "nats": broker.check,
            },
            workers={
                "nats": broker.run,
                "outbox": Relay(service.database, broker, source="user").run,
                "audit": Retention(service.database).run,
                **following(service.settings.database_password_file, service.database.renew),
                **following(service.settings.valkey_password_file, service.client.renew),
            },
            tracing=Tracing.configured("user", service.settings),
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """The wired service, and what it is wired over."""

    settings: Settings
    database: Database
    client: PipelinedClient
    servicers: Servicers


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Opened]:
    """The wired service over open pools; also for the command line."""
    configure("user", environment=settings.environment, version=settings.version, level=settings.log_level)
    database = Database.configured(settings, service="user")
    client = PipelinedClient(settings.valkey_url.get_secret_value(), password_file=settings.valkey_password_file)
    passwords = Passwords(settings.password_hash_workers, settings.password_hash_queue)
    try:
        await patiently("PostgreSQL", database.open)
        await patiently("Valkey", client.ping)
        servicers = build(settings, database, client, passwords)
        await servicers.use_cases.fill_forms()
        yield Opened(settings, database, client, servicers)
    finally:
        passwords.close()
        await client.close()
        await database.close()


app = ServiceProcess(compose)
ops = app.ops
