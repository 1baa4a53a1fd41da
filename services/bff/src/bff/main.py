"""The BFF's composition root: the only place where its objects are built and wired."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from chassis.admission import Admission
from chassis.config import load
from chassis.grpc.peer import Peer
from chassis.http.application import HttpApplication
from chassis.lifecycle import Composition, ServiceProcess, patiently
from chassis.logging import configure
from chassis.password_files import following
from chassis.tokens import JwksFile, TokenVerifier
from chassis.tracing.process import Tracing
from chassis.valkey import PipelinedClient
from contracts.bff.v1.operations import OPERATIONS
from contracts.notification.v1.notification_pb2_grpc import NotificationServiceStub
from contracts.order.v1.audit_pb2_grpc import AuditServiceStub as OrderAuditStub
from contracts.order.v1.catalog_pb2_grpc import CatalogServiceStub
from contracts.order.v1.order_pb2_grpc import OrderServiceStub
from contracts.user.v1.audit_pb2_grpc import AuditServiceStub as UserAuditStub
from contracts.user.v1.session_pb2_grpc import SessionServiceStub
from contracts.user.v1.user_pb2_grpc import UserServiceStub

from bff.authentication import Authenticator, client_address
from bff.handlers.audit import AuditHandlers
from bff.handlers.auth import AuthHandlers
from bff.handlers.catalog import CatalogHandlers
from bff.handlers.me import MeHandlers
from bff.handlers.meta import MetaHandlers
from bff.handlers.notifications import NotificationHandlers
from bff.handlers.orders import OrderHandlers
from bff.handlers.users import UserHandlers
from bff.origins import Origins
from bff.sessions import SessionReader
from bff.settings import Settings

# The service of a name, as this one calls it.
Peers = Callable[[str], Peer]


def build(
    settings: Settings, client: PipelinedClient, peers: Peers, admission: Admission | None = None
) -> HttpApplication:
    """Wire the BFF over its Valkey client and the services that it calls."""
    user, order = peers("user"), peers("order")
    users, sessions = user.stub(UserServiceStub), user.stub(SessionServiceStub)
    orders, catalog = order.stub(OrderServiceStub), order.stub(CatalogServiceStub)
    keys = JwksFile(settings.jwks_file)
    tokens = TokenVerifier(
        keys,
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        lifetime=settings.access_token_seconds,
    )
    origins = Origins([origin.strip() for origin in settings.allowed_origins.split(",") if origin.strip()])
    handlers = (
        AuthHandlers(users, sessions, tokens, origins),
        MeHandlers(users, orders, sessions),
        CatalogHandlers(catalog),
        OrderHandlers(orders),
        UserHandlers(users, sessions),
        AuditHandlers(user.stub(UserAuditStub), order.stub(OrderAuditStub)),
        NotificationHandlers(peers("notification").stub(NotificationServiceStub)),
        MetaHandlers(keys, settings.security_contact.split(",")),
    )
    authenticate = Authenticator(tokens, SessionReader(client), users, sessions)
    return HttpApplication(OPERATIONS, handlers, authenticate, settings.max_body_bytes, admission, client_address)


@asynccontextmanager
async def compose() -> AsyncIterator[Composition]:
    """Open the Valkey client and wire the BFF over its Envoy's clusters; everything closed again at the end."""
    # Imported here: build() above has no need of the Envoy host.
    from chassis.host import upstream_channel

    settings = load(Settings)
    configure("bff", environment=settings.environment, version=settings.version, level=settings.log_level)
    client = PipelinedClient(settings.valkey_url.get_secret_value(), password_file=settings.valkey_password_file)
    try:
        await patiently("Valkey", client.ping)
        admission = Admission(enabled=settings.admission)
        application = build(settings, client, lambda name: Peer(upstream_channel(name), name), admission)
        workers = following(settings.valkey_password_file, client.renew)
        yield Composition(
            application,
            admission,
            readiness={"valkey": client.ping},
            workers=workers,
            tracing=Tracing.configured("bff", settings),
        )
    finally:
        await client.close()


app = ServiceProcess(compose)
ops = app.ops
