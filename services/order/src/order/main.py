"""The Order service's composition root: the only place where its objects are built and wired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from chassis.admission import Admission
from chassis.audit.retention import Retention
from chassis.cache import VersionedCache
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
from chassis.valkey import CACHE_TIMEOUT_SECONDS, PipelinedClient
from contracts.order.v1 import audit_pb2, catalog_pb2, order_pb2
from contracts.order.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from contracts.order.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from contracts.order.v1.order_pb2_grpc import add_OrderServiceServicer_to_server

from order.domain.unpaid import UnpaidLimits
from order.gateways.bounded import BoundedGateway
from order.gateways.payment import PaymentGateway
from order.gateways.payment_sandbox import PaymentSandbox
from order.handlers.audit import AuditHandlers
from order.handlers.catalog import CatalogHandlers
from order.handlers.orders import OrderHandlers
from order.service.catalog import CatalogUseCases
from order.service.orders import OrderUseCases
from order.service.payments import PaymentUseCases
from order.service.refunds import RefundUseCases
from order.service.replay import ReplayCache
from order.service.sweep import Sweep
from order.service.transitions import Caches, Transitions
from order.settings import Settings


@dataclass(frozen=True, slots=True)
class Servicers:
    """Everything the service answers, and the work it does by itself."""

    orders: OrderHandlers
    catalog: CatalogHandlers
    audit: AuditHandlers
    sweep: Sweep
    tokens: TokenVerifier
    admission: Admission

    def add_to(self, server: Server) -> None:
        """Register on a server: ours, or grpcio's own."""
        with serve_contract(
            server,
            order_pb2.DESCRIPTOR.services_by_name["OrderService"],
            catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"],
            audit_pb2.DESCRIPTOR.services_by_name["AuditService"],
            admission=self.admission,
            tokens=self.tokens,
        ) as contract:
            add_OrderServiceServicer_to_server(self.orders, contract)
            add_CatalogServiceServicer_to_server(self.catalog, contract)
            add_AuditServiceServicer_to_server(self.audit, contract)


def payment_gateway(settings: Settings, database: Database) -> PaymentGateway:
    """The provider that PAYMENT_PROVIDER names. A real one is another case here, and has no mark on its value."""
    match settings.payment_provider:
        case "sandbox":
            return PaymentSandbox(database)


def build(settings: Settings, database: Database, client: PipelinedClient) -> Servicers:
    """Wire the service over an open database and Valkey client."""

    def now() -> datetime:
        return datetime.now(UTC)

    retention = timedelta(hours=settings.idempotency_retention_hours)
    caches = Caches(
        orders=VersionedCache(client, "order:order:", settings.order_cache_seconds),
        products=VersionedCache(client, "order:product:", settings.order_cache_seconds),
    )
    transitions = Transitions(caches, now)
    replays = ReplayCache(client, retention.total_seconds())
    gateway = BoundedGateway(payment_gateway(settings, database), settings.payment_timeout_seconds)
    orders = OrderUseCases(
        database=database,
        transitions=transitions,
        replays=replays,
        now=now,
        new_id=uuid7,
        payment_window=timedelta(seconds=settings.payment_window_seconds),
        unpaid=UnpaidLimits(
            orders=settings.max_unpaid_orders,
            pieces=settings.max_unpaid_pieces,
            window=timedelta(seconds=settings.unpaid_window_seconds),
        ),
    )
    payments = PaymentUseCases(
        database=database,
        transitions=transitions,
        replays=replays,
        gateway=gateway,
        now=now,
        answer_time=timedelta(seconds=settings.payment_timeout_seconds),
        most_declined=settings.max_declined_payments,
    )
    refunds = RefundUseCases(database=database, transitions=transitions, gateway=gateway, now=now)
    catalog = CatalogUseCases(database=database, cache=caches.products, now=now, new_id=uuid7)
    cursors = CursorSigner(settings.cursor_secret.get_secret_value())
    return Servicers(
        orders=OrderHandlers(orders, payments, refunds, cursors),
        catalog=CatalogHandlers(catalog, cursors),
        audit=AuditHandlers(database),
        sweep=Sweep(
            orders=orders,
            payments=payments,
            refunds=refunds,
            catalog=catalog,
            database=database,
            now=now,
            interval=settings.sweep_interval_seconds,
            key_retention=retention,
        ),
        tokens=token_verifier(settings),
        admission=Admission(enabled=settings.admission),
    )


@asynccontextmanager
async def compose() -> AsyncIterator[Composition]:
    """Open the pools and wire the service and its sweep; everything closed again at the end."""
    settings = load(Settings)
    configure("order", environment=settings.environment, version=settings.version, level=settings.log_level)
    database = Database.configured(settings, service="order")
    client = PipelinedClient(settings.cache_url.get_secret_value(), CACHE_TIMEOUT_SECONDS, settings.cache_password_file)
    broker = Nats.configured("order", settings)
    try:
        await patiently("PostgreSQL", database.open)
        servicers = build(settings, database, client)
        application = GrpcApplication()
        servicers.add_to(application)
        yield Composition(
            application,
            servicers.admission,
            readiness={"postgresql": database.ping},
            details={"valkey-cache": client.ping, "nats": broker.check},
            workers={
                "nats": broker.run,
                "outbox": Relay(database, broker, source="order").run,
                "audit": Retention(database).run,
                "sweep": servicers.sweep.run,
                **following(settings.database_password_file, database.renew),
                **following(settings.cache_password_file, client.renew),
            },
            tracing=Tracing.configured("order", settings),
        )
    finally:
        await client.close()
        await database.close()


app = ServiceProcess(compose)
ops = app.ops
