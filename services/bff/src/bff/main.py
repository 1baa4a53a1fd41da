"""The BFF's composition root: the only place where its objects are built and wired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from chassis import valkey
from chassis.config import load
from chassis.http.application import HttpApplication, Limits
from chassis.ids import uuid7
from chassis.lifecycle import Composition, ServiceProcess, patiently
from chassis.logging import configure
from chassis.valkey import PipelinedClient
from contracts.http.operations import OPERATIONS
from contracts.order.v1.catalog_pb2_grpc import CatalogServiceStub
from contracts.order.v1.order_pb2_grpc import OrderServiceStub
from contracts.user.v1.user_pb2_grpc import UserServiceStub
from redis.asyncio import Redis

from bff.authentication import Authenticator
from bff.handlers.auth import AuthHandlers
from bff.handlers.catalog import CatalogHandlers
from bff.handlers.me import MeHandlers
from bff.handlers.meta import MetaHandlers
from bff.handlers.orders import OrderHandlers
from bff.handlers.users import UserHandlers
from bff.sessions import SessionStore
from bff.settings import Settings
from bff.throttle import LoginThrottle
from bff.tokens import AccessTokens, SigningKeys


def build(
    settings: Settings, client: Redis, pipelined: PipelinedClient, user_channel: Any, order_channel: Any
) -> HttpApplication:
    """Wire the BFF over its Valkey clients and a channel to each service (ours, or grpcio's own)."""
    users = UserServiceStub(user_channel)
    orders = OrderServiceStub(order_channel)
    tokens = AccessTokens(
        SigningKeys(settings.signing_keys_dir, settings.signing_key_activation_seconds),
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        lifetime=settings.access_token_seconds,
        new_id=uuid7,
    )
    lifetime = timedelta(days=settings.session_days)
    sessions = SessionStore(
        client,
        pipelined,
        now=lambda: datetime.now(UTC),
        new_id=uuid7,
        lifetime=lifetime,
        idle=timedelta(days=settings.session_idle_days),
    )
    throttle = LoginThrottle(client)
    handlers = (
        AuthHandlers(users, sessions, throttle, tokens, int(lifetime.total_seconds())),
        MeHandlers(users, orders, sessions, throttle),
        CatalogHandlers(CatalogServiceStub(order_channel)),
        OrderHandlers(orders),
        UserHandlers(users, sessions),
        MetaHandlers(tokens),
    )
    limits = Limits(body_bytes=settings.max_body_bytes)
    return HttpApplication(OPERATIONS, handlers, Authenticator(tokens, sessions, users), limits)


@asynccontextmanager
async def compose() -> AsyncIterator[Composition]:
    """Open the Valkey pool and wire the BFF over its Envoy's clusters; everything closed again at the end."""
    # Imported here: build() above has no need of the Envoy host.
    from chassis.host import upstream_channel

    settings = load(Settings)
    configure("bff", environment=settings.environment, version=settings.version, level=settings.log_level)
    url = settings.valkey_url.get_secret_value()
    client = valkey.connect(url, max_connections=settings.valkey_connections)
    pipelined = PipelinedClient(url)
    try:
        await patiently("Valkey", client.ping)
        application = build(settings, client, pipelined, upstream_channel("user"), upstream_channel("order"))
        yield Composition(application, {"valkey": client.ping})
    finally:
        await pipelined.close()
        await client.aclose()


app = ServiceProcess(compose)
ops = app.ops
