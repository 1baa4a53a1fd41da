"""The Notification service's composition root: the only place where its objects are built and wired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from chassis.admission import Admission
from chassis.config import load
from chassis.database import Database
from chassis.events.consumer import Consumer
from chassis.events.nats import Nats
from chassis.events.nats_consumer import NatsConsumer
from chassis.grpc.methods import Server
from chassis.grpc.peer import Peer
from chassis.grpc.server import GrpcApplication
from chassis.grpc.serving import serve_contract
from chassis.host import egress_channel
from chassis.lifecycle import Composition, ServiceProcess, patiently
from chassis.logging import configure
from chassis.password_files import following
from chassis.tokens import TokenVerifier, token_verifier
from chassis.tracing.process import Tracing
from contracts.notification.v1 import notification_pb2
from contracts.notification.v1.notification_pb2_grpc import add_NotificationServiceServicer_to_server
from contracts.user.v1.contact_pb2_grpc import ContactServiceStub

from notification.gateways.contacts import Contacts, UserContacts
from notification.gateways.smtp import Server as MailServerAddress
from notification.gateways.smtp import Smtp
from notification.handlers.preferences import PreferenceHandlers
from notification.service import noting
from notification.service.letters import Letters
from notification.service.preferences import PreferenceUseCases
from notification.service.sending import Policy, Sending
from notification.settings import Settings, address

# Of an attempt's deadline: a process that is still there has said what became of it by then.
_LEASE_DEADLINES = 1.5


@dataclass(frozen=True, slots=True)
class Servicers:
    """Everything the service answers."""

    preferences: PreferenceHandlers
    tokens: TokenVerifier
    admission: Admission

    def add_to(self, server: Server) -> None:
        """Register on a server: ours, or grpcio's own."""
        contract = notification_pb2.DESCRIPTOR.services_by_name["NotificationService"]
        with serve_contract(server, contract, admission=self.admission, tokens=self.tokens) as registry:
            add_NotificationServiceServicer_to_server(self.preferences, registry)


def build(settings: Settings, database: Database) -> Servicers:
    """Wire what the service answers over an open database."""
    preferences = PreferenceUseCases(database=database, now=_now)
    return Servicers(PreferenceHandlers(preferences), token_verifier(settings), Admission(enabled=settings.admission))


def sending(settings: Settings, database: Database, contacts: Contacts) -> Sending:
    """Wire what sends mails."""
    return Sending(
        database=database,
        contacts=contacts,
        letters=Letters(address(settings.mail_from), settings.mail_locale),
        server=Smtp(
            MailServerAddress.of(settings.smtp_url.get_secret_value()),
            settings.smtp_timeout_seconds,
            settings.mail_deadline_seconds / 2,
            settings.smtp_password_file,
        ),
        policy=Policy(
            concurrency=settings.mail_concurrency,
            rate=settings.mail_rate,
            deadline=settings.mail_deadline_seconds,
            lease=_LEASE_DEADLINES * settings.mail_deadline_seconds,
            attempts=settings.mail_attempts,
        ),
    )


def _now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def compose() -> AsyncIterator[Composition]:
    """Open the pool and wire the service, its consumer and what sends; everything closed again at the end."""
    settings = load(Settings)
    configure("notification", environment=settings.environment, version=settings.version, level=settings.log_level)
    database = Database.configured(settings, service="notification")
    broker = Nats.configured("notification", settings)
    try:
        await patiently("PostgreSQL", database.open)
        servicers, application = build(settings, database), GrpcApplication()
        servicers.add_to(application)
        async with egress_channel("user") as user:
            contacts = UserContacts(Peer(user, "user").stub(ContactServiceStub))
            consumer = Consumer("notification", NatsConsumer(broker, "notification"), database, noting.handlers())
            yield Composition(
                application,
                servicers.admission,
                readiness={"postgresql": database.ping},
                details={"nats": broker.check},
                workers={
                    "nats": broker.run,
                    "events": consumer.run,
                    "mails": sending(settings, database, contacts).run,
                    **following(settings.database_password_file, database.renew),
                },
                tracing=Tracing.configured("notification", settings),
            )
    finally:
        await database.close()


app = ServiceProcess(compose)
ops = app.ops
