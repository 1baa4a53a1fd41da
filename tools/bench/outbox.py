"""How fast an outbox drains, and what orders notice of it, on a stack of its own.

    .venv/bin/python tools/bench/outbox.py [--events 20000]
    .venv/bin/python tools/bench/outbox.py --beside-orders [--events 100000] [--pairs 5]

The first: events that wait in a database of their own, with a thousand subjects, are published by a relay in this process,
while nothing else has anything to do. The second: orders are placed for ten seconds with nothing in the outbox and for ten
with so many events more in it than usual, by turns; the Order service's own relay publishes them. Needs wrk. Either has a
consumer that takes nothing, without which the broker would keep none of the events.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter

import asyncpg
from chassis.database import Database
from chassis.events import outbox
from chassis.events.event import Event
from chassis.events.nats import Nats, connection
from chassis.events.relay import Relay
from chassis.events.subjects import EVENTS
from chassis.ids import uuid7
from checkout import Checkout
from devstack.broker import url
from devstack.layout import Layout
from devstack.secrets import load_or_create
from mesh.topology import OPERATORS
from nats.js.api import ConsumerConfig

from devstack import postgres

_ROOT = Path(__file__).resolve().parents[2]
_PORT_OFFSET = 5000
# Of an order with two lines, about as large as an event of it.
_BYTES = 400
_SUBJECTS = 1000
_CONSUMER = "bench"
_SECONDS = 10


async def measure_alone(layout: Layout, count: int) -> None:
    """Print events a second, and CPU of an event in this process."""
    secrets = load_or_create(layout.secrets)
    own = replace(postgres.database_of("order", secrets), database=f"outbox_{uuid.uuid4().hex}")
    await postgres.prepare_one(layout, secrets, own)
    await postgres.migrate_one(layout, secrets, own, print)
    database = Database(own.url(layout), min_size=1, max_size=4, service="bench")
    await database.open()
    broker = Nats(url(layout), layout.certificates / "order", "order")
    connecting = asyncio.create_task(broker.run())
    while not broker.is_connected:
        await asyncio.sleep(0.05)
    for start in range(0, count, 1000):
        async with database.transaction() as transaction:
            await outbox.write(transaction, [_event(start + number) for number in range(1000)])
    began, used = perf_counter(), _cpu()
    await Relay(database, broker, source="order").publish_all()
    seconds = perf_counter() - began
    print(f"{count / seconds:,.0f} events a second, {(_cpu() - used) / count * 1e6:,.0f} µs of CPU an event here")
    connecting.cancel()
    await asyncio.wait({connecting})
    await database.close()


async def measure_beside_orders(layout: Layout, checkout: Checkout, count: int, pairs: int) -> None:
    """Print the rate of orders while so many events drain, as a part of the rate while none do; and how fast they did."""
    secrets = load_or_create(layout.secrets)
    order = postgres.database_of("order", secrets)
    superuser = await asyncpg.connect(postgres.superuser_url(layout, secrets, order.database))
    checkout.prepare()
    checkout.measure("order create", 3)
    ratios, speeds = [], []
    for _ in range(pairs):
        alone = await asyncio.to_thread(checkout.measure, "order create", _SECONDS)
        events = [_event(number) for number in range(count)]
        await superuser.copy_records_to_table(
            "outbox",
            records=[(one.id, one.type, one.subject, one.time, one.traceparent, one.data) for one in events],
            columns=("id", "type", "subject", "time", "traceparent", "data"),
        )
        began = await _waiting(superuser)
        beside = await asyncio.to_thread(checkout.measure, "order create", _SECONDS)
        left = await _waiting(superuser)
        if not left:
            raise SystemExit("the outbox was empty before its time: more --events")
        ratios.append(beside.rate / alone.rate)
        speeds.append((began - left) / _SECONDS)
        while await _waiting(superuser):
            await asyncio.sleep(0.5)
    await superuser.close()
    print(f"orders a second: {median(ratios):.2f} of the rate without ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"meanwhile {median(speeds):,.0f} of these events a second were published, and those of the orders")


async def _waiting(superuser: asyncpg.Connection[asyncpg.Record]) -> int:
    waiting: int = await superuser.fetchval(
        "SELECT count(*) FROM outbox WHERE published_at IS NULL AND subject LIKE 'bench/%'"
    )
    return waiting


@asynccontextmanager
async def _consumer(layout: Layout) -> AsyncIterator[None]:
    async with connection(url(layout), layout.certificates / OPERATORS, OPERATORS) as operator:
        await operator.jetstream().add_consumer(
            EVENTS, ConsumerConfig(durable_name=_CONSUMER, filter_subject=f"{EVENTS}.order.v1.*")
        )
    yield


def _event(number: int) -> Event:
    subject, schema = f"bench/{number % _SUBJECTS}", "urn:backend:event:order.v1.OrderPaid"
    return Event(uuid7(), "order", "order.v1.OrderPaid", subject, datetime.now(UTC), schema, "", b"x" * _BYTES)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _measure(layout: Layout, checkout: Checkout, given: argparse.Namespace) -> None:
    async with _consumer(layout):
        if given.beside_orders:
            await measure_beside_orders(layout, checkout, given.events or 100_000, given.pairs)
        else:
            await measure_alone(layout, given.events or 20_000)


def main() -> None:
    """Measure on a stack of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside-orders", action="store_true")
    parser.add_argument("--events", type=int)
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="outbox-") as directory:
        layout = Layout(Path(directory) / "data", _PORT_OFFSET)
        checkout = Checkout(_ROOT, layout.data_dir, layout.port_offset)
        checkout.start()
        try:
            asyncio.run(_measure(layout, checkout, given))
        finally:
            checkout.stop()


if __name__ == "__main__":
    main()
