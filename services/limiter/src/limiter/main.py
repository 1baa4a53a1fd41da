"""The limiter's composition root: the only place where its objects are built and wired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chassis.admission import Admission
from chassis.config import load
from chassis.grpc.server import GrpcApplication
from chassis.grpc.serving import serve_contract
from chassis.lifecycle import Composition, ServiceProcess, patiently
from chassis.logging import configure
from chassis.password_files import following
from chassis.tracing.process import Tracing
from chassis.valkey import PipelinedClient
from contracts.bff.v1.operations import OPERATIONS
from contracts.envoy.service.ratelimit.v3 import rls_pb2
from contracts.envoy.service.ratelimit.v3.rls_pb2_grpc import add_RateLimitServiceServicer_to_server
from contracts.opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from contracts.opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import add_LogsServiceServicer_to_server

from limiter.handlers import EndedHandlers, RateLimitHandlers
from limiter.leases import Leases
from limiter.limits import Limit, Limits
from limiter.settings import Settings
from limiter.window import SlidingWindow


@dataclass(frozen=True, slots=True)
class Servicers:
    """Everything the limiter answers."""

    limits: RateLimitHandlers
    ended: EndedHandlers
    admission: Admission

    def add_to(self, server: GrpcApplication) -> None:
        """Register on a server."""
        limiting = rls_pb2.DESCRIPTOR.services_by_name["RateLimitService"]
        ended = logs_service_pb2.DESCRIPTOR.services_by_name["LogsService"]
        with serve_contract(server, limiting, ended, admission=self.admission) as contract:
            add_RateLimitServiceServicer_to_server(self.limits, contract)
            add_LogsServiceServicer_to_server(self.ended, contract)


def build(settings: Settings, client: PipelinedClient) -> Servicers:
    """Wire the limiter over its Valkey client."""
    limits = Limits(
        OPERATIONS,
        connections=Limit(settings.connections_per_address, settings.connection_seconds),
        scale=settings.rate_limit_scale,
    )
    leases = Leases(client, settings.connection_seconds)
    return Servicers(
        RateLimitHandlers(limits, SlidingWindow(client), leases),
        EndedHandlers(leases),
        Admission(enabled=settings.admission),
    )


@asynccontextmanager
async def compose() -> AsyncIterator[Composition]:
    """Connect to Valkey and wire the limiter; closed again at the end."""
    settings = load(Settings)
    configure("limiter", environment=settings.environment, version=settings.version, level=settings.log_level)
    client = PipelinedClient(settings.valkey_url.get_secret_value(), password_file=settings.valkey_password_file)
    try:
        await patiently("Valkey", client.ping)
        servicers, application = build(settings, client), GrpcApplication()
        servicers.add_to(application)
        yield Composition(
            application,
            servicers.admission,
            readiness={"valkey": client.ping},
            details={"valkey": client.accepts_writes("limit:")},
            workers=following(settings.valkey_password_file, client.renew),
            tracing=Tracing.configured("limiter", settings),
        )
    finally:
        await client.close()


app = ServiceProcess(compose)
ops = app.ops
