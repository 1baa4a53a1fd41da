"""How fast an outbox drains: events that wait in a database of a running stack, published by a relay to its broker.

    .venv/bin/python tools/bench/outbox.py --data-dir D [--port-offset 0] [--events 20000]

D is the data directory of a running stack (`backend up --detach --data-dir D --port-offset 0`). The relay runs in this process,
over a database of its own, with a thousand subjects; the rest of the stack has nothing to do. A consumer that takes nothing is
there while it lasts, without which the broker would keep none of the events.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import asyncpg
from chassis.database import Database
from chassis.events import outbox
from chassis.events.event import Event
from chassis.events.nats import Nats, connection
from chassis.events.relay import Relay
from chassis.events.subjects import EVENTS
from chassis.ids import uuid7
from devstack.broker import url
from devstack.layout import Layout
from devstack.secrets import load_or_create
from mesh.topology import OPERATORS
from nats.js.api import ConsumerConfig

from devstack import postgres

# Of an order with two lines, about as large as an event of it.
_BYTES = 400
_SUBJECTS = 1000
_CONSUMER = "bench"


async def measure(layout: Layout, count: int) -> None:
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
    async with connection(url(layout), layout.certificates / OPERATORS, OPERATORS) as operator:
        streams = operator.jetstream()
        await streams.add_consumer(
            EVENTS, ConsumerConfig(durable_name=_CONSUMER, filter_subject=f"{EVENTS}.order.v1.*")
        )
        try:
            began, used = perf_counter(), _cpu()
            await Relay(database, broker, source="order").publish_all()
            seconds = perf_counter() - began
        finally:
            await streams.delete_consumer(EVENTS, _CONSUMER)
    print(f"{count / seconds:,.0f} events a second, {(_cpu() - used) / count * 1e6:,.0f} µs of CPU an event here")
    connecting.cancel()
    await asyncio.wait({connecting})
    await database.close()
    superuser = await asyncpg.connect(postgres.superuser_url(layout, secrets, "postgres"))
    await superuser.execute(f"DROP DATABASE {own.database} WITH (FORCE)")
    await superuser.close()


def _event(number: int) -> Event:
    subject, schema = f"order/{number % _SUBJECTS}", "urn:backend:event:order.v1.OrderPaid"
    return Event(uuid7(), "order", "order.v1.OrderPaid", subject, datetime.now(UTC), schema, "", b"x" * _BYTES)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--port-offset", type=int, default=0)
    given = parser.parse_args()
    asyncio.run(measure(Layout(given.data_dir.resolve(), given.port_offset), given.events))


if __name__ == "__main__":
    main()
