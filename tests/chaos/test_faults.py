"""Faults, caused for real on a stack of their own: killed processes, hung databases, a Valkey that is down."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient
from inside import metrics, paused, until_ready

from conftest import (
    BACKEND,
    GENEROUS,
    People,
    Platform,
    backend,
    new_key,
    order_of,
    running_platform,
)


@pytest.mark.parametrize("name", ["user", "order", "bff", "edge", "valkey", "valkey-cache", "nats"])
async def test_a_killed_process_comes_back_and_nothing_is_lost(people: People, stack: Platform, name: str) -> None:
    client, login = await people.newcomer()
    order = await people.order(client, (await people.product(), 1))
    pid = stack.pid(name)
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        while stack.pid(name) == pid:
            await asyncio.sleep(0.1)
    await until_ready(stack)
    client = await people.log_in(login)
    assert (await client.get_order(order.id)).data == order
    log = (stack.layout.logs / "supervisor.log").read_text(encoding="utf-8")
    assert f"{name}: crashed with status -9; starting again in" in log


async def test_a_hung_process_is_started_again_and_status_says_so(people: People, stack: Platform) -> None:
    """A service, Valkey and PostgreSQL, stopped by SIGSTOP at once; their own processes hang, and nobody wakes them."""

    def processes() -> dict[str, dict[str, object]]:
        said = backend("status", "--json", "--data-dir", str(stack.layout.data_dir), check=False)
        status = json.loads(said.stdout)
        # 4 whenever something that runs is not ready.
        assert said.returncode == (0 if status["ready"] else 4)
        return {"stack": {"ready": status["ready"]}, **{p["name"]: p for p in status["processes"]}}

    client, login = await people.newcomer()
    order = await people.order(client, (await people.product(), 1))
    hung = ("order", "valkey", "postgres")
    before = await asyncio.to_thread(processes)
    assert before["stack"]["ready"]
    stopped = [paused(int(str(before[name]["pid"]))) for name in hung]
    for one in stopped:
        one.__enter__()
    # At once, not when they are given up.
    now = await asyncio.to_thread(processes)
    assert {name: now[name]["state"] for name in hung} == dict.fromkeys(hung, "unhealthy")
    # It needs what hangs, and answers.
    assert now["user"]["state"] == "not ready"
    assert not now["stack"]["ready"]
    assert [now[name]["pid"] for name in hung] == [before[name]["pid"] for name in hung]
    # Given up after 12 s (conftest.py), and started again.
    async with asyncio.timeout(72):
        while any(now[name]["pid"] == before[name]["pid"] for name in hung) or not now["stack"]["ready"]:
            await asyncio.sleep(0.5)
            now = await asyncio.to_thread(processes)
    assert all(int(str(now[name]["restarts"])) > int(str(before[name]["restarts"])) for name in hung)
    # Whoever answered all the time is as it was.
    for name in ("user", "bff", "limiter", "edge"):
        assert now[name]["pid"] == before[name]["pid"], name
    await until_ready(stack)
    client = await people.log_in(login)
    assert (await client.get_order(order.id)).data == order


async def test_a_killed_database_answers_503_and_comes_back_with_its_data(people: People, stack: Platform) -> None:
    client, _ = await people.newcomer()
    order = await people.order(client, (await people.product(), 1))
    killed = asyncio.Event()
    statuses = set()

    async def read() -> None:
        for _ in range(100):
            response = await people.http.get("/v1/products")
            statuses.add(response.status_code)
            if response.status_code == 503:
                assert "retry-after" in response.headers
                killed.set()

    async with asyncio.TaskGroup() as readers:
        for _ in range(4):
            readers.create_task(read())
        await people.http.get("/v1/products")
        os.kill(stack.pid("postgres"), signal.SIGKILL)
    assert statuses <= {200, 503}
    assert killed.is_set()
    await until_ready(stack)
    assert (await client.get_order(order.id)).data == order


async def test_a_hung_order_service_leaves_the_overview_its_profile(people: People, stack: Platform) -> None:
    client, login = await people.newcomer()
    with paused(stack.pid("order")):
        overview = (await client.get_my_overview()).data
        assert overview.profile.email == login.email
        assert overview.missing == ["orders", "spent"]
        with pytest.raises(ApiError) as caught:
            await client.list_orders()
        assert caught.value.status == 503
    await until_ready(stack)
    assert (await client.get_my_overview()).data.missing == []


async def test_a_dead_order_service_leaves_the_overview_its_profile(people: People, stack: Platform) -> None:
    client, login = await people.newcomer()
    pid = stack.pid("order")
    os.kill(pid, signal.SIGKILL)
    overview = (await client.get_my_overview()).data
    assert overview.profile.email == login.email
    assert overview.missing == ["orders", "spent"]
    await until_ready(stack)


async def test_without_valkey_authentication_fails_closed(people: People, stack: Platform) -> None:
    client, login = await people.newcomer()
    with paused(stack.pid("valkey")):
        for call in (client.get_me(), client.login(login), client.list_orders()):
            with pytest.raises(ApiError) as caught:
                await call
            assert caught.value.status == 503
            assert "retry-after" in caught.value.headers
        # What needs no session is served: the cache is only a cache.
        assert (await people.http.get("/v1/products?limit=1")).status_code == 200
    await until_ready(stack)
    assert (await client.get_me()).status == 200


async def test_a_console_that_hangs_or_dies_costs_a_counter_and_no_request(people: People, stack: Platform) -> None:
    ops = stack.status["endpoints"]["bff_ops"]
    failed = 'backend_spans_total{outcome="failed"}'

    async def read_traced() -> None:
        for _ in range(30):
            answer = await people.http.get("/v1/products?limit=1", headers=stack.traced)
            assert answer.status_code == 200

    before = (await metrics(ops, "/metrics"))[failed]
    with paused(stack.pid("console")):
        async with asyncio.timeout(10):
            while (await metrics(ops, "/metrics"))[failed] == before:
                await read_traced()
    os.kill(stack.pid("console"), signal.SIGKILL)
    await read_traced()
    ready = f"{stack.status['endpoints']['console']}/healthz/ready"
    async with asyncio.timeout(20):
        while True:
            with suppress(httpx.TransportError):
                if (await people.http.get(ready)).status_code == 200:
                    break
            await asyncio.sleep(0.2)


async def test_a_console_that_hangs_does_not_fill_the_edge(stack: Platform) -> None:
    """What Envoy has to send waits in a bounded number of requests; what is more is lost, and nobody's request is."""
    ops = stack.status["endpoints"]["edge_ops"]
    overflow = 'envoy_cluster_upstream_rq_pending_overflow{envoy_cluster_name="otlp"}'
    ((name, value),) = stack.traced.items()
    request = f"GET /v1/nothing HTTP/1.1\r\nhost: edge\r\n{name}: {value}\r\n\r\n".encode()

    async def ask(times: int) -> None:
        address = httpx.URL(stack.url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        for _ in range(times):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 404 ")
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        writer.close()

    async def found() -> tuple[float, float]:
        counted = await metrics(ops, "/metrics")
        return counted["envoy_server_memory_allocated{}"], counted[overflow]

    with paused(stack.pid("console")):
        await ask(4000)
        first, lost = await found()
        await ask(12000)
        last, lost_since = await found()
    assert lost_since > lost
    # Twelve thousand spans that wait have 7.4 MiB.
    assert last - first < 4 * 2**20


async def test_readiness_depends_on_the_database_and_liveness_does_not(people: People, stack: Platform) -> None:
    ops = stack.status["endpoints"]["order_ops"]
    with paused(stack.pid("postgres")):
        ready = await people.http.get(f"{ops}/healthz/ready")
        assert (ready.status_code, set(ready.json())) == (503, {"ready", "postgresql"})
        assert (await people.http.get(f"{ops}/healthz/live")).status_code == 200
        said = await asyncio.to_thread(
            backend, "status", "--json", "--data-dir", str(stack.layout.data_dir), check=False
        )
        found = {process["name"]: process["found"] for process in json.loads(said.stdout)["processes"]}
        assert (set(found["order"]), found["bff"]) == ({"postgresql"}, {})
    async with asyncio.timeout(10):
        while (await people.http.get(f"{ops}/healthz/ready")).status_code != 200:
            await asyncio.sleep(0.1)
    assert (await people.http.get(f"{ops}/healthz/startup")).json() == {"started": True}


async def test_a_statement_gets_the_time_that_is_left_and_no_more(people: People, stack: Platform) -> None:
    client, _ = await people.newcomer()
    product = await people.product(stock=5)
    blocker: asyncpg.Connection = await stack.database("orderdb")
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("SELECT 1 FROM products WHERE id = $1 FOR UPDATE", uuid.UUID(product.id))
    with pytest.raises(ApiError) as caught:
        await client.create_order(order_of((product, 1)), idempotency_key=new_key())
    assert caught.value.status == 503
    assert caught.value.problem is not None
    assert caught.value.problem.type == "urn:backend:problem:deadline-exceeded"
    # The statement is gone with its caller: nobody waits for the lock any more.
    await asyncio.sleep(0.5)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'order' AND wait_event_type = 'Lock'"
    assert await blocker.fetchval(waiting) == 0
    await transaction.rollback()
    await blocker.close()
    assert (await client.create_order(order_of((product, 1)), idempotency_key=new_key())).status == 201


async def test_a_client_that_leaves_takes_its_statement_with_it(people: People, stack: Platform) -> None:
    client, _ = await people.newcomer()
    product = await people.product(stock=5)
    blocker: asyncpg.Connection = await stack.database("orderdb")
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("SELECT 1 FROM products WHERE id = $1 FOR UPDATE", uuid.UUID(product.id))
    with pytest.raises(httpx.ReadTimeout):
        await people.http.post(
            "/v1/orders",
            json={"items": [{"product_id": product.id, "quantity": 1}]},
            headers={"authorization": f"Bearer {client.access_token}", "idempotency-key": new_key()},
            timeout=0.3,
        )
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'order' AND wait_event_type = 'Lock'"
    # Well before the request's own deadline of two seconds.
    async with asyncio.timeout(1.2):
        while await blocker.fetchval(waiting):
            await asyncio.sleep(0.05)
    await transaction.rollback()
    await blocker.close()


async def test_a_full_pool_is_refused_in_time_and_recovers(people: People, stack: Platform) -> None:
    client, _ = await people.newcomer()
    product = await people.product(stock=100)
    blocker: asyncpg.Connection = await stack.database("orderdb")
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("SELECT 1 FROM products WHERE id = $1 FOR UPDATE", uuid.UUID(product.id))

    async def order() -> int:
        try:
            return (await client.create_order(order_of((product, 1)), idempotency_key=new_key())).status
        except ApiError as error:
            return error.status

    assert set(await asyncio.gather(*(order() for _ in range(40)))) == {503}
    await transaction.rollback()
    await blocker.close()
    assert await order() == 201


async def test_a_restart_drains_what_runs(people: People, stack: Platform) -> None:
    client, _ = await people.newcomer()
    order = await people.order(client, (await people.product(), 1))
    slow = models.PaymentRequest(payment_token="tok_timeout")
    paying = asyncio.create_task(client.pay_order(order.id, slow, idempotency_key=new_key()))
    await asyncio.sleep(0.3)
    stopping = await asyncio.create_subprocess_exec(
        *(str(BACKEND), "restart", "order", "--data-dir", str(stack.layout.data_dir)), stdout=subprocess.DEVNULL
    )
    # The request in flight is answered as if nothing had happened.
    with pytest.raises(ApiError) as caught:
        await paying
    assert caught.value.status == 504
    assert await stopping.wait() == 0
    await until_ready(stack)


async def test_data_survive_a_sigkill_of_everything(people: People, stack: Platform) -> None:
    client, login = await people.newcomer()
    order = await people.order(client, (await people.product(), 1))
    state = json.loads(stack.layout.state_file.read_text(encoding="utf-8"))
    pids = [state["supervisor_pid"], *(process["pid"] for process in state["processes"])]
    everything = [
        child for pid in pids for child in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))
    ]
    for process in everything:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    data_dir = stack.layout.data_dir
    again = backend(
        "up",
        "--detach",
        "--data-dir",
        str(data_dir),
        "--port-offset",
        str(stack.layout.port_offset),
        *GENEROUS,
        check=False,
    )
    assert again.returncode == 0, again.stdout
    client = await people.log_in(login)
    assert (await client.get_order(order.id)).data == order
    assert running_platform(data_dir).status["ready"]


def test_what_only_the_supervisors_death_leaves_behind_is_ended_by_the_next_start(stack: Platform) -> None:
    state = json.loads(stack.layout.state_file.read_text(encoding="utf-8"))
    os.kill(state["supervisor_pid"], signal.SIGKILL)
    again = backend(
        "up", "--detach",
        "--data-dir", str(stack.layout.data_dir),
        "--port-offset", str(stack.layout.port_offset),
        *GENEROUS,
        check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout
    for process in state["processes"]:
        assert (
            not psutil.pid_exists(process["pid"])
            or Path(f"/proc/{process['pid']}/stat").read_text(encoding="utf-8").split()[2] == "Z"
        )


async def test_sixty_four_slow_clients_do_not_starve_a_fast_one(people: People, stack: Platform) -> None:
    connections = [await asyncio.open_connection("127.0.0.1", stack.layout.port("public")) for _ in range(64)]
    for _, writer in connections:
        writer.write(b"POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    assert (await BackendClient(people.http).list_products(limit=1)).status == 200
    for _, writer in connections:
        writer.close()


async def test_hot_reads_leave_memory_where_it_was(people: People, stack: Platform) -> None:
    """A small part of `make bench`'s million reads: a leak of a kilobyte a read would show as 10 MiB."""
    client, _ = await people.newcomer()
    order = await people.order(client, (await people.product(), 1))

    def resident() -> float:
        pids = [stack.pid(name) for name in ("bff", "order")]
        return sum(child.memory_info().rss for pid in pids for child in psutil.Process(pid).children()) / 2**20

    async def read(times: int) -> None:
        for _ in range(times):
            await client.get_order(order.id)

    await asyncio.gather(*(read(125) for _ in range(16)))
    before = resident()
    await asyncio.gather(*(read(300) for _ in range(32)))
    assert resident() - before < 6
