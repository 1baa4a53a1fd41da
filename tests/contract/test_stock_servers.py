"""The same applications on stock servers: the Order servicers on grpcio's own, the BFF on uvicorn; an order is placed.

Nothing of Envoy is involved, and these processes are second replicas beside the running platform's: they share its
PostgreSQL and its Valkey.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import bff.main
import bff.settings
import grpc
import httpx
import notification.main
import order.main
import pytest
import user.main
import uvicorn
from chassis.config import load
from chassis.database import Database
from chassis.grpc.peer import Peer
from chassis.valkey import PipelinedClient
from contracts.bff.v1 import models
from devstack.options import Options
from mesh.topology import CACHE, STATE
from user.service.passwords import Passwords

from conftest import People, Platform, new_key, order_of
from devstack import services

SERVICES = {"user": user, "order": order, "notification": notification}


async def grpcio_server(stack: AsyncExitStack, servicers: object) -> str:
    server = grpc.aio.server()
    servicers.add_to(server)  # type: ignore[attr-defined]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stack.push_async_callback(server.stop, None)
    return f"127.0.0.1:{port}"


@pytest.fixture
async def stock(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The public URL of the stock servers."""
    targets = {}
    async with AsyncExitStack() as stack:
        pipelined, cache = (
            PipelinedClient(services.valkey_url(platform.layout, platform.secrets, server=server))
            for server in (STATE, CACHE)
        )
        stack.push_async_callback(pipelined.close)
        stack.push_async_callback(cache.close)
        for name, module in SERVICES.items():
            for variable, value in services.environment(name, platform.layout, platform.secrets, Options()).items():
                monkeypatch.setenv(variable, value)
            settings = load(module.settings.Settings)
            database = Database.configured(settings, service="stock")
            await database.open()
            stack.push_async_callback(database.close)
            if name == "user":
                passwords = Passwords(1, 4)
                stack.callback(passwords.close)
                servicers: object = user.main.build(settings, database, pipelined, passwords)
            elif name == "order":
                servicers = order.main.build(settings, database, cache)
            else:
                servicers = notification.main.build(settings, database)
            targets[name] = await grpcio_server(stack, servicers)
        for variable, value in services.environment("bff", platform.layout, platform.secrets, Options()).items():
            monkeypatch.setenv(variable, value)
        channels = {name: grpc.aio.insecure_channel(target) for name, target in targets.items()}
        for channel in channels.values():
            stack.push_async_callback(channel.close)
        application = bff.main.build(
            load(bff.settings.Settings),
            pipelined,
            {name: Peer(channel) for name, channel in channels.items()}.__getitem__,
        )
        server = uvicorn.Server(uvicorn.Config(application, port=0, lifespan="off", log_level="error"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True
        await serving


async def test_an_order_is_placed_and_paid_without_envoy(stock: str, platform: Platform, people: People) -> None:
    async with httpx.AsyncClient(base_url=stock, timeout=30) as http:
        here = People(http, platform)
        client, _ = await here.newcomer()
        product = await here.product(stock=3)
        order = await here.order(client, (product, 2))
        assert (await client.get_product(product.id)).data.available == 1
        approved = models.PaymentRequest(payment_token="tok_approved")
        paid = (await client.pay_order(order.id, approved, idempotency_key=new_key())).data
        assert paid.status == "paid"
        assert [t.to_status for t in (await (await here.role("support")).get_order_history(order.id)).data.items] == [
            "pending_payment",
            "paid",
        ]
        assert (await http.get(f"/v1/orders/{order.id}")).status_code == 401


async def test_another_replica_replays_a_key_and_sees_sessions_end(
    stock: str, platform: Platform, people: People
) -> None:
    client, login = await people.newcomer()
    product, key = await people.product(), new_key()
    first = (await client.create_order(order_of((product, 1)), idempotency_key=key)).data
    async with httpx.AsyncClient(base_url=stock, timeout=30) as http:
        there = await People(http, platform).log_in(login)
        there.access_token = client.access_token
        again = await there.create_order(order_of((product, 1)), idempotency_key=key)
        assert (again.headers["idempotency-replayed"], again.data) == ("true", first)
        # What one replica writes, the other's next read sees.
        assert (await there.get_order(first.id)).data.status == "pending_payment"
        approved = models.PaymentRequest(payment_token="tok_approved")
        await client.pay_order(first.id, approved, idempotency_key=new_key())
        assert (await there.get_order(first.id)).data.status == "paid"
        await client.logout()
        assert (await http.get("/v1/me", headers={"authorization": f"Bearer {there.access_token}"})).status_code == 401
