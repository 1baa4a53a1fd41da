"""The User service's composition root: the only place where its objects are built and wired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from chassis.cache import VersionedCache
from chassis.config import load
from chassis.database import Database
from chassis.grpc.server import GrpcApplication
from chassis.grpc.serving import serve_contract
from chassis.ids import uuid7
from chassis.keyset import CursorSigner
from chassis.lifecycle import Check, Composition, ServiceProcess, patiently
from chassis.logging import configure
from chassis.tokens import TokenVerifier, token_verifier
from chassis.valkey import PipelinedClient
from contracts.user.v1 import user_pb2
from contracts.user.v1.user_pb2_grpc import add_UserServiceServicer_to_server

from user_service.handlers.users import UserHandlers
from user_service.service.passwords import Passwords
from user_service.service.users import UserUseCases
from user_service.settings import Settings


@dataclass(frozen=True, slots=True)
class Servicers:
    """Everything the service answers, and its use cases for the command line."""

    users: UserHandlers
    use_cases: UserUseCases
    tokens: TokenVerifier

    def add_to(self, server: object) -> None:
        """Register on a server: ours, or grpcio's own."""
        service = user_pb2.DESCRIPTOR.services_by_name["UserService"]
        with serve_contract(server, service, tokens=self.tokens) as contract:
            add_UserServiceServicer_to_server(self.users, contract)


def build(settings: Settings, database: Database, client: PipelinedClient, passwords: Passwords) -> Servicers:
    """Wire the service over an open database and Valkey client."""
    cache = VersionedCache(client, "user:", settings.user_cache_seconds)
    use_cases = UserUseCases(
        database=database, cache=cache, passwords=passwords, now=lambda: datetime.now(UTC), new_id=uuid7
    )
    cursors = CursorSigner(settings.cursor_secret.get_secret_value())
    return Servicers(UserHandlers(use_cases, cache, cursors), use_cases, token_verifier(settings))


@asynccontextmanager
async def compose() -> AsyncIterator[Composition]:
    """Open the pools and wire the service; everything closed again at the end."""
    async with opened(load(Settings)) as (servicers, checks):
        application = GrpcApplication()
        servicers.add_to(application)
        yield Composition(application, checks)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Servicers, dict[str, Check]]]:
    """The wired service over open pools, with its readiness checks; also for the command line."""
    configure("user", environment=settings.environment, version=settings.version, level=settings.log_level)
    database = Database(
        settings.database_url.get_secret_value(),
        min_size=settings.database_pool_min,
        max_size=settings.database_pool_max,
        service="user",
    )
    client = PipelinedClient(settings.valkey_url.get_secret_value())
    passwords = Passwords(settings.password_hash_workers, settings.password_hash_queue)
    try:
        await patiently("PostgreSQL", database.open)
        await patiently("Valkey", client.ping)
        yield build(settings, database, client, passwords), {"postgresql": database.ping, "valkey": client.ping}
    finally:
        passwords.close()
        await client.close()
        await database.close()


app = ServiceProcess(compose)
ops = app.ops
