"""A database of the test's own, and two replicas of the use cases over it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import structlog
from chassis.cache import VersionedCache
from chassis.database import Database
from chassis.ids import uuid7
from chassis.valkey import PipelinedClient
from order.domain.unpaid import UnpaidLimits
from order.service.orders import OrderUseCases
from order.service.replay import ReplayCache
from order.service.transitions import Caches, Transitions
from order_use_cases import Clock

from conftest import Platform
from devstack import postgres, services


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What was logged. Printed, dozens of stack traces would take a minute."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
async def database(platform: Platform) -> AsyncIterator[Database]:
    """A database of the test's own: what expires and settles here is nobody else's."""
    known = postgres.database_of("order", platform.secrets)
    own = replace(known, database=f"order_{uuid.uuid4().hex}")
    superuser = await platform.database("postgres")
    await postgres.prepare_one(platform.layout, platform.secrets, own)
    await postgres.migrate_one(platform.layout, platform.secrets, own, print)
    made = Database(own.url(platform.layout), min_size=1, max_size=8, service="test")
    await made.open()
    yield made
    await made.close()
    await superuser.execute(f"DROP DATABASE {own.database}")
    await superuser.close()


@pytest.fixture
async def replicas(platform: Platform, database: Database) -> AsyncIterator[tuple[Clock, list[OrderUseCases]]]:
    """Two replicas of the use cases and the clock both go by."""
    clock = Clock()
    made = []
    async with AsyncExitStack() as stack:
        for _ in range(2):
            client = PipelinedClient(services.valkey_url(platform.layout, platform.secrets))
            stack.push_async_callback(client.close)
            made.append(
                OrderUseCases(
                    database=database,
                    transitions=Transitions(
                        Caches(
                            VersionedCache(client, "order:order:", 60),
                            VersionedCache(client, "order:product:", 60),
                        ),
                        clock,
                    ),
                    replays=ReplayCache(client, 60),
                    now=clock,
                    new_id=uuid7,
                    payment_window=timedelta(minutes=15),
                    unpaid=UnpaidLimits(orders=0, pieces=0, window=timedelta(0)),
                )
            )
        yield clock, made
