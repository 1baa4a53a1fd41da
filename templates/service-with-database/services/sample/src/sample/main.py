"""The service's composition root: the only place where its objects are built and wired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from chassis.admission import Admission
from chassis.config import load
from chassis.cursors import CursorSigner
from chassis.database import Database
from chassis.grpc.server import GrpcApplication
from chassis.grpc.serving import serve_contract
from chassis.ids import uuid7
from chassis.lifecycle import Composition, ServiceProcess, patiently
from chassis.logging import configure
from chassis.password_files import following
from chassis.tokens import TokenVerifier, token_verifier
from chassis.tracing.process import Tracing
from contracts.sample.v1 import sample_pb2
from contracts.sample.v1.sample_pb2_grpc import add_SampleServiceServicer_to_server

from sample.handlers.entries import EntryHandlers
from sample.service.entries import EntryUseCases
from sample.settings import Settings


@dataclass(frozen=True, slots=True)
class Servicers:
    """Everything the service answers."""

    entries: EntryHandlers
    tokens: TokenVerifier
    admission: Admission

    def add_to(self, server: GrpcApplication) -> None:
        """Register on a server."""
        contract = sample_pb2.DESCRIPTOR.services_by_name["SampleService"]
        with serve_contract(server, contract, admission=self.admission, tokens=self.tokens) as registry:
            add_SampleServiceServicer_to_server(self.entries, registry)


def build(settings: Settings, database: Database) -> Servicers:
    """Wire the service over an open database."""
    entries = EntryUseCases(database=database, now=lambda: datetime.now(UTC), new_id=uuid7)
    cursors = CursorSigner(settings.cursor_secret.get_secret_value())
    return Servicers(EntryHandlers(entries, cursors), token_verifier(settings), Admission(enabled=settings.admission))


@asynccontextmanager
async def compose() -> AsyncIterator[Composition]:
    """Open the pool and wire the service; closed again at the end."""
    settings = load(Settings)
    configure("sample", environment=settings.environment, version=settings.version, level=settings.log_level)
    database = Database.configured(settings, service="sample")
    try:
        await patiently("PostgreSQL", database.open)
        servicers, application = build(settings, database), GrpcApplication()
        servicers.add_to(application)
        yield Composition(
            application,
            servicers.admission,
            readiness={"postgresql": database.ping},
            workers=following(settings.database_password_file, database.renew),
            tracing=Tracing.configured("sample", settings),
        )
    finally:
        await database.close()


app = ServiceProcess(compose)
ops = app.ops
