"""Events from a committed change to what a consumer makes of it, while everything on the way is killed by one schedule.

A relay and a consumer die at any step of any of their tasks; the broker and PostgreSQL are killed while they work. What was
committed has to have happened at the consumer, once, and in order for each subject. EVENTS_FAULTS=200 is ten thousand events.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import brokers
import listening
import psutil
import pytest
import relaying
from chassis.database import Database, Transaction
from chassis.errors import ServiceError
from chassis.events import limits
from chassis.events.event import Event
from chassis.events.nats import connection
from chassis.events.publisher import BrokerUnavailable
from chassis.events.subjects import EVENTS
from chassis.ids import uuid7
from devstack.layout import ROOT, Layout
from devstack.secrets import load_or_create
from google.protobuf.wrappers_pb2 import Int64Value
from mesh.topology import OPERATORS, SERVICES
from nats.errors import Error as NatsError

from devstack import postgres, privileges

FAULTS = int(os.environ.get("EVENTS_FAULTS", "12"))
NUMBER = Int64Value.DESCRIPTOR.full_name
TELLER = replace(SERVICES[0], name=relaying.NAME, publishes=("google.protobuf",))
LISTENER = replace(SERVICES[0], name=listening.NAME, consumes=(NUMBER,))
# What was changed, by the transaction that has told it.
WRITTEN = "CREATE TABLE written (subject text NOT NULL, number bigint NOT NULL, PRIMARY KEY (subject, number))"


class PostgreSQL:
    """A server that a test starts, kills and starts again."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.secrets = load_or_create(layout.secrets)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        await postgres.initialize(self.layout, self.secrets)
        sockets = postgres.socket_directory(self.layout)
        sockets.mkdir(parents=True, exist_ok=True)
        privileges.own(sockets)
        await postgres.remove_stale_lock(self.layout)
        log = os.open(self.layout.data_dir / "postgres.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._process = await asyncio.create_subprocess_exec(
            *postgres.command(self.layout),
            cwd=postgres.directory(self.layout),
            stdout=log,
            stderr=log,
            preexec_fn=privileges.child_setup([postgres.BINARIES / "postgres"]),
        )
        os.close(log)
        async with asyncio.timeout(30):
            while not await postgres.accepts_connections(self.layout):
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """All of its processes, at once, as when a machine stops."""
        assert self._process is not None
        if self._process.returncode is not None:
            return
        server = psutil.Process(self._process.pid)
        for process in (server, *server.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        await self._process.wait()

    async def databases(self) -> tuple[str, str]:
        """One with an outbox, and one with an inbox; their URLs."""
        teller = replace(postgres.database_of("order", self.secrets), database="teller")
        await postgres.prepare_one(self.layout, self.secrets, teller)
        await postgres.migrate_one(self.layout, self.secrets, teller, lambda _said: None)
        superuser = await asyncpg.connect(postgres.superuser_url(self.layout, self.secrets, "postgres"))
        await superuser.execute("CREATE DATABASE listener")
        await superuser.close()
        urls = [postgres.superuser_url(self.layout, self.secrets, name) for name in ("teller", "listener")]
        for url, schema in zip(urls, (WRITTEN, listening.SCHEMA), strict=True):
            connection = await asyncpg.connect(url)
            await connection.execute(schema)
            await connection.close()
        return urls[0], urls[1]


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[tuple[PostgreSQL, brokers.Server]]:
    async with brokers.running(directory, (*SERVICES, TELLER, LISTENER)) as broker:
        server = PostgreSQL(broker.layout)
        await server.start()
        try:
            yield server, broker
        finally:
            await server.kill()


class Writer:
    """Changes its subjects and tells each change, until as many are committed as are wanted."""

    def __init__(self, url: str, chance: random.Random, subjects: Sequence[str], wanted: int) -> None:
        self._database = Database(url, min_size=1, max_size=2, service="writer")
        self._chance, self._subjects, self._wanted = chance, subjects, wanted

    async def run(self) -> None:
        await self._database.open()
        while True:
            try:
                async with self._database.transaction() as transaction:
                    # What has failed may have been committed all the same: what is written says so.
                    left = self._wanted - await self._committed(transaction)
                    for _ in range(min(left, self._chance.randrange(1, 12))):
                        await self._change(transaction)
                    await asyncio.sleep(self._chance.choice((0, 0, 0.01)))
            except ServiceError:
                await asyncio.sleep(0.05)
                continue
            if left <= 0:
                break
        await self._database.close()

    async def _committed(self, transaction: Transaction) -> int:
        row = await transaction.fetchrow("SELECT count(*) FROM written WHERE subject = ANY($1)", self._subjects)
        assert row is not None
        return int(row["count"])

    async def _change(self, transaction: Transaction) -> None:
        subject = self._chance.choice(self._subjects)
        row = await transaction.fetchrow(
            "INSERT INTO written SELECT $1, count(*) FROM written WHERE subject = $1 RETURNING number", subject
        )
        assert row is not None
        data = Int64Value(value=row["number"]).SerializeToString()
        transaction.events.append(
            Event(uuid7(), relaying.NAME, NUMBER, subject, datetime.now(UTC), "urn:test", "", data)
        )


async def live(script: str, life: listening.Life) -> int:
    """Let a program live and be killed to its end; how often it was killed."""
    command = [sys.executable, str(ROOT / "tests" / script), json.dumps(asdict(life))]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, start_new_session=True)
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()
    told = json.loads(output.splitlines()[-1])
    assert told["status"] == 0
    return int(told["killed"])


async def kill_servers(server: PostgreSQL, broker: brokers.Server, chance: random.Random, kills: int) -> None:
    for _ in range(kills):
        await asyncio.sleep(chance.uniform(0.05, 0.6))
        one = chance.choice((server, broker))
        await one.kill()
        await asyncio.sleep(chance.uniform(0, 0.2))
        await one.start()


async def until_taken(broker: brokers.Server, consumers: asyncio.Task[int]) -> None:
    """Until the broker has nothing left: it keeps an event until it has been acted on."""
    while not consumers.done():
        with suppress(BrokerUnavailable, NatsError, OSError, TimeoutError):
            async with connection(broker.url, broker.certificates_of(OPERATORS), OPERATORS) as client:
                if not (await client.jetstream().stream_info(EVENTS)).state.messages:
                    return
        await asyncio.sleep(0.1)


async def numbers(url: str, query: str) -> dict[str, list[int]]:
    database = await asyncpg.connect(url)
    found: dict[str, list[int]] = defaultdict(list)
    for row in await database.fetch(query):
        found[row["subject"]].append(row["number"])
    await database.close()
    return found


async def happened(
    directory: Path, monkeypatch: pytest.MonkeyPatch, seed: int, faults: int, events: int, *, marks_first: bool = False
) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """What was committed and what it has led to, subject by subject, after so many faults."""
    monkeypatch.setattr(limits, "ACK_SECONDS", listening.PATIENCE)
    chance = random.Random(seed)
    subjects = [f"order/{number}" for number in range(40)]
    async with running(directory) as (server, broker), asyncio.timeout(300 + 3 * faults + events / 50):
        teller, listener = await server.databases()
        kills = faults // 3

        def life(database: str, name: str, *, hasty: bool = False) -> listening.Life:
            certificates = str(broker.certificates_of(name))
            return listening.Life(broker.url, certificates, database, events, chance.randrange(2**32), kills, hasty)

        consumers = asyncio.create_task(live("listening.py", life(listener, listening.NAME)))
        async with asyncio.TaskGroup() as tasks:
            for part in range(4):
                writer = Writer(teller, random.Random(seed + part), subjects[part::4], events // 4)
                tasks.create_task(writer.run())
            relays = tasks.create_task(live("relaying.py", life(teller, relaying.NAME, hasty=marks_first)))
            tasks.create_task(kill_servers(server, broker, chance, faults - 2 * kills))
        await until_taken(broker, consumers)
        consumers.cancel()
        await asyncio.wait({consumers})
        print(f"relays killed: {relays.result()}")
        return (
            await numbers(teller, "SELECT subject, number FROM written ORDER BY number"),
            await numbers(listener, "SELECT subject, number FROM effects ORDER BY at"),
        )


async def test_what_was_committed_has_happened_once_and_in_order_whatever_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    written, effects = await happened(tmp_path, monkeypatch, seed, FAULTS, 50 * FAULTS)
    assert sum(map(len, written.values())) == 50 * FAULTS
    assert effects == written


async def test_a_relay_that_marks_before_it_publishes_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, effects = await happened(tmp_path, monkeypatch, 1, 9, 600, marks_first=True)
    assert sum(map(len, effects.values())) < sum(map(len, written.values())) == 600
