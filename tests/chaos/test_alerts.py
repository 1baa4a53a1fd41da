"""Each fault, caused for real, fires its alert and no other, which ends with it; without a fault nothing fires.

A real Prometheus asks every process of a running stack, by our own rules whose windows are a sixtieth of what they are. What the
same rules say without a Prometheus (`mesh.observability.alerts.firing`) is compared each time. The two alerts that need
thousands of requests are in libs/mesh/tests/test_rules.py, with the times of all of them.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from contracts.user.v1 import events_pb2
from devstack.options import Options
from inside import another, from_address, paused
from mesh.certificates import LIFE, Certificates
from watching import Watch, faults, ops_of

from conftest import People, Platform, backend, client_address, new_key

pytestmark = pytest.mark.prometheus

APPS = Path(__file__).parent / "apps"
TALKING, ENDING = APPS / "talking_worker.py", APPS / "ending_worker.py"


@pytest.fixture(scope="module")
def prometheus(stack: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """Sees the whole stack."""
    with Watch(tmp_path_factory.mktemp("prometheus") / "one", ops_of(stack)) as found:
        yield found


@pytest.fixture
async def watch(people: People, prometheus: Watch) -> Watch:
    """It sees nothing wrong."""
    del people  # when they can be served
    await prometheus.begin()
    return prometheus


@asynccontextmanager
async def meanwhile(*works: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Each of these is done over and over, whether the fault lets it or not."""

    async def again_and_again(work: Callable[[], Awaitable[object]]) -> None:
        while True:
            with suppress(ApiError, httpx.HTTPError):
                await work()
            await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(again_and_again(work)) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [error for error in ended if not isinstance(error, asyncio.CancelledError)]


async def test_without_a_fault_nothing_fires(people: People, watch: Watch) -> None:
    client, login = await people.newcomer()
    product = await people.product()

    async def order() -> None:
        await people.order(client, (product, 1))

    async with meanwhile(client.get_me, client.list_products, order, lambda: people.log_in(login)):
        await watch.look_on(6)
    assert faults(watch.fired) == set()
    assert await watch.query('class:failed:burn_rate5m{class="read"}') == []
    assert await watch.query('class:slow:burn_rate5m{class="read"}')


async def test_a_process_that_hangs(stack: Platform, watch: Watch) -> None:
    with paused(stack.pid("user")):
        await watch.until("ProcessDown user")


async def test_a_cache_that_hangs(people: People, stack: Platform, watch: Watch) -> None:
    async with meanwhile(lambda: people.http.get("/v1/products")):
        with paused(stack.pid("valkey-cache")):
            await watch.until("CheckFails order")


async def test_a_console_that_hangs(people: People, stack: Platform, watch: Watch) -> None:
    async with meanwhile(lambda: people.http.get("/v1/products", headers=stack.traced)):
        with paused(stack.pid("console")):
            await watch.until("SpansLost bff", "SpansLost order")


async def test_a_broker_that_hangs(people: People, stack: Platform, watch: Watch) -> None:
    client, _ = await people.newcomer()
    product = await people.product()

    async def order() -> None:
        await people.order(client, (product, 1))

    async with meanwhile(order):
        # Killed for it, before it goes on, where that comes late.
        with suppress(ProcessLookupError), paused(stack.pid("nats")):
            async with asyncio.timeout(30):
                while "EventsWait order" not in watch.fired:
                    await watch.look_on(0.25)
            data_dir = str(stack.layout.data_dir)
            said = (await asyncio.to_thread(backend, "events", "outbox", "--json", "--data-dir", data_dir)).stdout
    waiting = {(told := json.loads(line))["service"]: told["events"] for line in said.splitlines()}
    assert waiting["order"] > 0
    # Whether it is seen to be gone before it is killed and started again, is chance.
    assert watch.fired <= {
        f"{alert} {service}"
        for alert in ("EventsWait", "CheckFails", "EventsFail")
        for service in ("order", "user", "notification")
    }


async def test_a_consumer_whose_database_refuses_it(stack: Platform, watch: Watch) -> None:
    """What it does fails, so that it lags; what it cannot read is a dead letter."""
    own, users = await stack.database("notificationdb"), await stack.database("userdb")
    strangers = [str(uuid.uuid4()) for _ in range(150)]
    told = [events_pb2.UserRegistered(user_id=user_id).SerializeToString() for user_id in strangers]
    await own.execute("REVOKE INSERT ON mails FROM notification_service")
    try:
        await users.execute(
            "INSERT INTO outbox (id, type, subject, time, traceparent, data) "
            "SELECT gen_random_uuid(), 'user.v1.UserRegistered', 'user/' || id, now(), '', data "
            "FROM unnest($1::text[], $2::bytea[]) AS strangers (id, data)",
            [*strangers, "nobody"],
            [*told, b"\xff\xff"],
        )
        await watch.until("EventsFail notification", "EventsLag notification", "DeadLetters notification")
    finally:
        await own.execute("GRANT INSERT ON mails TO notification_service")
        where = ("--data-dir", str(stack.layout.data_dir))
        await asyncio.to_thread(backend, "events", "dead-letters", "drop", "--all", *where)
        await users.close()
    # What had failed is done: nobody is written to whom nobody knows.
    async with asyncio.timeout(90):
        while await own.fetchval("SELECT count(*) FROM mails WHERE state = 'no_recipient'") < len(strangers):
            await asyncio.sleep(0.2)
    await own.close()


async def test_a_mail_server_that_hangs(people: People, stack: Platform, watch: Watch) -> None:
    async with meanwhile(people.newcomer):
        with paused(stack.pid("mailbox")):
            await watch.until("MailsWait notification")


async def test_a_limiter_that_may_not_count(people: People, stack: Platform, watch: Watch) -> None:
    _, login = await people.newcomer()
    async with stack.valkey() as valkey:
        await valkey.execute_command("ACL", "SETUSER", "limiter", "-eval", "-evalsha")  # type: ignore[no-untyped-call]
        try:
            async with meanwhile(lambda: people.log_in(login)):
                await watch.until("LimiterFailsOpen edge")
        finally:
            await valkey.execute_command("ACL", "SETUSER", "limiter", "+eval", "+evalsha")  # type: ignore[no-untyped-call]


async def test_certificates_that_are_not_renewed(stack: Platform, watch: Watch) -> None:
    # Four hours are four minutes here.
    soon = Certificates(stack.layout.pki, stack.layout.certificates, timedelta(minutes=3))
    await asyncio.to_thread(soon.rotate)
    try:
        await watch.until(*(f"CertificateExpires {name}" for name in ops_of(stack)))
    finally:
        await asyncio.to_thread(Certificates(stack.layout.pki, stack.layout.certificates, LIFE).rotate)


async def test_a_pool_that_is_used_up(people: People, stack: Platform, watch: Watch) -> None:
    """More lists are asked for than there are connections, and each waits a moment for a lock; none fails."""
    database = await stack.database("orderdb")

    async def lock() -> None:
        async with database.transaction():
            await database.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(0.7)

    async with AsyncExitStack() as clients, meanwhile(lock):
        # Two people at two addresses, for one has no more than half of a lane. Together they fill it: 16 calls, 10 connections.
        reads = []
        for role in ("support", "admin"):
            headers = {"authorization": f"Bearer {(await people.role(role)).access_token}"}
            http = await clients.enter_async_context(from_address(client_address(), stack.url))
            reads.append(partial(http.get, "/v1/admin/orders", headers=headers))
        async with meanwhile(*(reads * 8)):
            await watch.until("PoolExhausted order")
    await database.close()


async def test_what_is_wrong_with_others_or_with_who_watches(stack: Platform, tmp_path: Path) -> None:
    """Processes beside the stack, and one that is not looked for: each seen by a Prometheus of its own, all at once."""
    known, host = ops_of(stack), "127.0.0.1"
    async with AsyncExitStack() as entered:
        ending = entered.enter_context(another(stack, "order", Options(), application=ENDING))
        talking = entered.enter_context(
            another(stack, "order", Options(), application=TALKING, output=Path("/dev/full"))
        )

        async def only(expected: str, processes: dict[str, str]) -> None:
            with Watch(tmp_path / expected, processes) as watch:
                await watch.ready()
                await watch.until(expected)

        await asyncio.gather(
            only("WorkerNotRunning order-2", {**known, "order-2": f"{host}:{ending.port('order_ops')}"}),
            only("LogLinesLost order-3", {**known, "order-3": f"{host}:{talking.port('order_ops')}"}),
            only("ServiceMissing limiter", {name: where for name, where in known.items() if name != "limiter"}),
        )


async def test_budgets_that_burn(people: People, stack: Platform, tmp_path: Path) -> None:
    """Orders cannot be written, and stock can only be changed slowly: each class of operation burns its own budget.

    Envoy tells of times every five seconds, and windows have to be longer than that.
    """
    client, _ = await people.newcomer()
    admin = await people.role("admin")
    product, slow = await people.product(), await people.product()
    database, blocker = await stack.database("orderdb"), await stack.database("orderdb")
    await database.execute("REVOKE INSERT ON orders FROM order_service")

    async def lock() -> None:
        async with blocker.transaction():
            await blocker.execute("SELECT 1 FROM products WHERE id = $1 FOR UPDATE", slow.id)
            await asyncio.sleep(1.2)

    async def order() -> None:
        # A plain client: that this is an answer of 500 is no surprise here.
        body = {"items": [{"product_id": product.id, "quantity": 1}]}
        headers = {"authorization": f"Bearer {client.access_token}", "idempotency-key": new_key()}
        await http.post("/v1/orders", json=body, headers=headers)

    async def change() -> None:
        await admin.adjust_stock(slow.id, models.StockAdjustment(delta=1, reason="counted"), idempotency_key=new_key())

    try:
        with Watch(tmp_path / "budgets", ops_of(stack), factor=20) as watch:
            await watch.begin()
            async with from_address(client_address(), stack.url) as http, meanwhile(lock, order, order, *[change] * 6):
                await watch.until("AvailabilityBudgetBurns write", "LatencyBudgetBurns administration")
    finally:
        await database.execute("GRANT INSERT ON orders TO order_service")
        await database.close()
        await blocker.close()
