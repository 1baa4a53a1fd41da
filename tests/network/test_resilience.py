"""Rotation and replicas, under load: nothing that a client sees may fail."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import inside
import jwt
import psutil
import pytest
from chassis.tokens import JwksFile
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient
from contracts.bff.v1.operations import OPERATIONS
from cryptography import x509
from devstack.layout import Layout
from devstack.options import Options
from mesh import envoy
from mesh.certificates import SETTLE_SECONDS
from mesh.policies import POLICIES

from conftest import People, Platform, backend, http_client, new_key, order_of
from devstack import keys, proxies, services


class Load:
    """Clients that read, order (again with the same key when told to) and log in; what they saw."""

    def __init__(self, stack: Platform, people: People) -> None:
        self.stack = stack
        self.people = people
        self.seen: Counter[str] = Counter()
        self.kids: set[str] = set()
        self.stopping = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        product = await self.people.product(stock=1_000_000)
        async with asyncio.TaskGroup() as clients:
            for _ in range(4):
                clients.create_task(self.reader())
            clients.create_task(self.buyer(product))
            clients.create_task(self.newcomers())
            yield
            self.stopping = True

    def saw(self, what: str, status: int) -> None:
        self.seen[f"{what} {status}"] += 1

    async def reader(self) -> None:
        async with http_client(self.stack.url) as http:
            client = await self._customer(http)
            while not self.stopping:
                # Below the limit of one user: 1,200 a minute.
                await asyncio.sleep(0.06)
                try:
                    self.saw("read", (await client.list_orders(limit=1)).status)
                except ApiError as error:
                    if error.status == 401:
                        client = await self._customer(http)
                    self.saw("read", error.status)

    async def buyer(self, product: models.Product) -> None:
        async with http_client(self.stack.url) as http:
            for number in itertools.count():
                if self.stopping:
                    return
                # One customer may have twenty unpaid orders.
                if number % 15 == 0:
                    client = await self._customer(http)
                await asyncio.sleep(0.6)
                key = new_key()
                for _ in range(5):
                    try:
                        status = (await client.create_order(order_of((product, 1)), idempotency_key=key)).status
                    except ApiError as error:
                        status = error.status
                        if status in (409, 503):
                            await asyncio.sleep(1)
                            continue
                    break
                self.saw("order", status)

    async def newcomers(self) -> None:
        while not self.stopping:
            async with http_client(self.stack.url) as http:
                client = await self._customer(http)
                self.kids.add(jwt.get_unverified_header(str(client.access_token))["kid"])
                self.saw("log in", 200)
                self.saw("read", (await client.get_me()).status)
            await asyncio.sleep(2)

    async def _customer(self, http: httpx.AsyncClient) -> BackendClient:
        return (await People(http, self.stack).newcomer())[0]


def serial(stack: Platform, port: int, name: str) -> int:
    """Of the certificate that a listener shows now."""
    context = inside.identity(stack.layout.certificates / name)
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        context.wrap_socket(raw) as tls,
    ):
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"").serial_number


async def run(stack: Platform, *command: str) -> str:
    done = await asyncio.to_thread(backend, *command, "--data-dir", str(stack.layout.data_dir))
    return done.stdout


async def test_certificates_authority_and_keys_rotate_under_load_without_a_failed_request(
    people: People, stack: Platform
) -> None:
    load = Load(stack, people)
    started = time.monotonic()
    orders = stack.layout.port("order")
    async with load.running():
        before = serial(stack, orders, "bff")
        assert "signs from" in await run(stack, "keys", "rotate")
        await asyncio.sleep(5)
        assert "rotated" in await run(stack, "certs", "rotate")
        await asyncio.sleep(SETTLE_SECONDS)
        rotated = serial(stack, orders, "bff")
        assert rotated != before
        issuer = (stack.layout.certificates / "bff" / "ca.crt").read_bytes()
        assert "rotated" in await run(stack, "certs", "rotate", "--ca")
        assert (stack.layout.certificates / "bff" / "ca.crt").read_bytes() != issuer
        assert serial(stack, orders, "bff") != rotated
        # Connections made before go on under what they were made with; new ones need the new authority.
        await run(stack, "restart", "order-2")
        await asyncio.sleep(max(0.0, 60 - (time.monotonic() - started)))
    assert {what.rpartition(" ")[2] for what in load.seen} <= {"200", "201"}, load.seen
    assert load.seen["read 200"] > 500
    # Tokens were signed by the old key, then by the new one.
    assert len(load.kids) == 2
    states = await run(stack, "keys")
    assert states.count("signing") == 1
    assert states.count("verifying") == 1
    public = JwksFile(keys.jwks_file(stack.layout)).current()
    assert set(public) >= load.kids
    shown = await run(stack, "certs")
    assert "spiffe://backend.local/order" in shown
    assert "--cacert" in await run(stack, "certs", "trust")


async def test_a_day_of_certificate_life_leaks_nothing(people: People, stack: Platform) -> None:
    """Forty-eight renewals: of a day's worth if they lived an hour."""

    def envoys() -> list[psutil.Process]:
        found = []
        for name in ("edge", "bff", "user", "order", "limiter"):
            found += [p for p in psutil.Process(stack.pid(name)).children(recursive=True) if p.name() == "envoy"]
        return found

    async def renew(times: int) -> None:
        for _ in range(times):
            await run(stack, "certs", "rotate")
            # New connections, so that the new certificate is used.
            async with httpx.AsyncClient(verify=inside.trusting(stack)) as client:
                assert (await client.get(f"{tls}/v1/products?limit=1")).status_code == 200

    tls = stack.status["endpoints"]["public_tls"]
    processes = envoys()
    assert len(processes) == 5
    await renew(8)
    before = [(process.num_fds(), process.memory_info().rss) for process in processes]
    await renew(40)
    for process, (descriptors, memory) in zip(processes, before, strict=True):
        assert process.num_fds() <= descriptors + 8
        assert process.memory_info().rss - memory < 8 * 2**20, process


async def test_a_killed_replica_costs_no_read_and_no_order_and_comes_back(people: People, stack: Platform) -> None:
    load = Load(stack, people)
    bff = stack.status["endpoints"]["bff_ops"]
    ejections = 'envoy_cluster_outlier_detection_ejections_enforced_total{envoy_cluster_name="order"}'
    healthy = 'envoy_cluster_membership_healthy{envoy_cluster_name="order"}'
    before = await inside.metrics(bff)
    assert before[healthy] == 2
    async with load.running():
        for name in ("order-2", "order"):
            await asyncio.sleep(2)
            # In a thread: the load must not stand still meanwhile.
            pid = await asyncio.to_thread(stack.pid, name)
            for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                os.kill(process.pid, signal.SIGKILL)
            async with asyncio.timeout(30):
                while await asyncio.to_thread(stack.pid, name) == pid:
                    await asyncio.sleep(0.2)
                while (await inside.metrics(bff))[healthy] < 2:
                    await asyncio.sleep(0.2)
        await asyncio.sleep(1)
    assert {what.rpartition(" ")[2] for what in load.seen} <= {"200", "201"}, load.seen
    assert load.seen["read 200"] > 100
    assert load.seen["order 201"] > 3
    after = await inside.metrics(bff)
    assert after[ejections] > before[ejections]
    # Both replicas are called again.
    async with http_client(stack.url) as http:
        await asyncio.gather(*(http.get("/v1/products?limit=1") for _ in range(40)))
    await asyncio.sleep(1.5)
    for name in ("order", "order-2"):
        lines = (stack.layout.logs / f"{name}.log").read_text(encoding="utf-8").splitlines()[-60:]
        assert any("ListProducts" in line for line in lines)


async def test_a_hung_replica_is_left_out_by_its_health_check(people: People, stack: Platform) -> None:
    bff = stack.status["endpoints"]["bff_ops"]
    healthy = 'envoy_cluster_membership_healthy{envoy_cluster_name="order"}'
    with inside.paused(stack.pid("order-2")):
        async with asyncio.timeout(15):
            while (await inside.metrics(bff))[healthy] != 1:
                await asyncio.sleep(0.2)
        statuses = [(await people.http.get("/v1/products?limit=1")).status_code for _ in range(20)]
        assert statuses == [200] * 20
    async with asyncio.timeout(15):
        while (await inside.metrics(bff))[healthy] != 2:
            await asyncio.sleep(0.2)


def test_the_edge_waits_longer_than_the_bff_and_the_bff_than_the_services() -> None:
    for route, operation in zip(sorted(envoy.routes(), key=_id), sorted(OPERATIONS, key=_id), strict=True):
        assert route.timeout == operation.timeout
    assert envoy.EDGE_MARGIN >= 1
    # A service's deadline is what is left of the BFF's; its Envoy ends no request that its caller still waits for.
    assert max(operation.timeout for operation in OPERATIONS) < 10


def _id(named: object) -> str:
    return str(getattr(named, "id", ""))


async def test_the_timeouts_hold_in_that_order_when_everything_hangs(people: People, stack: Platform) -> None:
    client, _ = await people.newcomer()
    pids = [stack.pid(name) for name in ("order", "order-2")]
    with inside.paused(pids[0]), inside.paused(pids[1]):
        started = time.monotonic()
        with pytest.raises(ApiError) as caught:
            await client.list_orders()
        elapsed = time.monotonic() - started
    # The BFF's own answer, before the edge would have given up.
    assert caught.value.status == 503
    assert caught.value.problem is not None
    assert elapsed < 2 + envoy.EDGE_MARGIN
    async with asyncio.timeout(20):
        while True:
            try:
                await client.list_orders()
            except ApiError:
                await asyncio.sleep(0.3)
            else:
                break


async def test_too_many_calls_at_once_are_refused_at_once(stack: Platform) -> None:
    """With the BFF hung, more than a circuit lets wait are refused: while it still hangs, so without waiting for it."""
    overflow = 'envoy_cluster_upstream_rq_pending_overflow{envoy_cluster_name="bff"}'

    async def while_it_hangs(*without: str) -> tuple[list[str], float]:
        with inside.edge(stack, Options(rate_limit_scale=100), "connections", *without) as url:
            port = int(url.rsplit(":", 1)[1])
            ops = f"http://127.0.0.1:{port - 8080 + 8140}"
            # Open before anything is asked: what takes a busy machine long is the connections, and a request waits
            # for the BFF no longer than one may take to connect.
            streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(700)]
            with inside.paused(stack.pid("bff")):
                for _, writer in streams:
                    writer.write(b"GET /v1/products?limit=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                # All have arrived: each waits for the BFF or has been refused.
                ended = 'envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="ingress"}'
                async with asyncio.timeout(60):
                    while (await inside.metrics(ops))[ended] < 700:
                        await asyncio.sleep(0.1)
                overflowed = (await inside.metrics(ops))[overflow]
            answers = [(await reader.read()).decode() for reader, _ in streams]
            for _, writer in streams:
                await inside.close(writer)
            return answers, overflowed

    answers, overflowed = await while_it_hangs()
    assert overflowed >= 100
    refused = [answer for answer in answers if answer.startswith("HTTP/1.1 503 ")]
    assert len(refused) >= 100
    for answer in refused:
        assert "\r\ncontent-type: application/problem+json\r\n" in answer
        assert re.search(r"\r\nretry-after: [1-9][0-9]*\r\n", answer)
    assert (await while_it_hangs("circuit_breakers"))[1] == 0
    async with asyncio.timeout(20), httpx.AsyncClient() as http:
        while (await http.get(f"{stack.url}/v1/products?limit=1")).status_code != 200:
            await asyncio.sleep(0.2)


async def calls(stack: Platform, bff: Layout, times: int) -> list[tuple[int | None, float]]:
    """Product lists asked of a BFF at once, each on a connection of its own: statuses, and the seconds they took."""
    edge = inside.identity(stack.layout.certificates / "edge")

    async def one() -> tuple[int | None, float]:
        started = time.monotonic()
        answer = await inside.call(bff.port("bff"), "/v1/products?limit=1", edge, method="GET")
        return answer.status, time.monotonic() - started

    return await asyncio.gather(*(one() for _ in range(times)))


async def test_no_queue_grows_in_front_of_python(stack: Platform) -> None:
    """With Order hung, a BFF works on no more reads than have a slot; the others need not wait for what hangs."""
    refused, admitted = (f'backend_admission_{what}_total{{class="read"}}' for what in ("refused", "admitted"))
    for without, sheds in ((("circuit_breakers",), True), (("circuit_breakers", "admission"), False)):
        with inside.another(stack, "bff", Options(replicas={"order": 2}, without=without)) as bff:
            ops = f"http://127.0.0.1:{bff.port('bff_ops')}"
            # So that there are connections, on which nothing will come back.
            await calls(stack, bff, 8)
            with inside.paused(stack.pid("order")), inside.paused(stack.pid("order-2")):
                answers = await calls(stack, bff, 200)
            found = await inside.metrics(ops, "/metrics")
        assert {status for status, _ in answers} == {503}
        if sheds:
            # Never more at once than there are slots: of those that got one, some did after others had given up.
            assert found[refused] >= 100
            assert found[admitted] <= 8 + 100
        else:
            assert (found[refused], found[admitted]) == (0, 208)
    await served_again(stack)


async def test_a_dead_replica_is_called_once_and_no_more(stack: Platform) -> None:
    """The third replica of three does not exist; it is always the least busy."""
    failures = 'envoy_cluster_upstream_cx_connect_fail{envoy_cluster_name="order"}'
    seen = {}
    for without in (("health_checks",), ("health_checks", "outliers")):
        with inside.another(stack, "bff", Options(replicas={"order": 3}, without=without)) as bff:
            for _ in range(20):
                await calls(stack, bff, 4)
            seen[without] = (await inside.metrics(f"http://127.0.0.1:{bff.port('bff_ops')}"))[failures]
    assert seen["health_checks",] <= 4
    assert seen["health_checks", "outliers"] >= 10


async def test_a_hung_replica_is_seen_by_asking_it(stack: Platform) -> None:
    """It still takes connections: only who asks it something sees that it answers nothing."""
    waited = {}
    for without in (("outliers",), ("outliers", "health_checks")):
        with inside.another(stack, "bff", Options(replicas={"order": 2}, without=without)) as bff:
            await calls(stack, bff, 8)
            with inside.paused(stack.pid("order-2")):
                # Two checks of a second each, a second apart.
                await asyncio.sleep(5)
                answers = [answer for _ in range(3) for answer in await calls(stack, bff, 8)]
        waited[without] = sum(status != 200 or seconds > 0.9 for status, seconds in answers)
    assert waited["outliers",] == 0
    assert waited["outliers", "health_checks"] >= 3
    await served_again(stack)


async def served_again(stack: Platform) -> None:
    """After processes have been paused: until both replicas have worked off what waited and are called again."""
    healthy = 'envoy_cluster_membership_healthy{envoy_cluster_name="order"}'
    async with asyncio.timeout(30), http_client(stack.url) as http:
        while True:
            started = time.monotonic()
            answers = await asyncio.gather(*(http.get("/v1/products?limit=1") for _ in range(16)))
            quick = time.monotonic() - started < 0.5 and all(answer.status_code == 200 for answer in answers)
            if quick and (await inside.metrics(stack.status["endpoints"]["bff_ops"]))[healthy] == 2:
                return
            await asyncio.sleep(0.3)


def test_every_policy_can_be_left_out_and_changes_what_is_rendered(stack: Platform) -> None:
    for policy in POLICIES:
        layout = stack.layout
        own = Layout(stack.layout.data_dir, stack.layout.port_offset + 1)
        options, secrets = Options(without=(policy,), replicas={"order": 2}), stack.secrets
        texts = []
        for process in ("edge", "order"):
            path = proxies.render_one(layout, options, process, own)
            # What a process is given: its configuration and its environment.
            texts.append((path.read_text(encoding="utf-8"), services.environment(process, layout, secrets, options)))
            path.unlink()
        reference = []
        for process in ("edge", "order"):
            path = proxies.render_one(layout, _options(stack), process, own)
            plain = _options(stack)
            reference.append((path.read_text(encoding="utf-8"), services.environment(process, layout, secrets, plain)))
            path.unlink()
        assert texts != reference, policy


def _options(stack: Platform) -> Options:
    state = json.loads(stack.layout.state_file.read_text(encoding="utf-8"))
    assert state["ready"]
    return Options(replicas={"order": 2})
