"""Floods of one class of operation beside one logged-in reader, who must notice nothing.

`tools/soak.py logins|payments [--data-dir D] [--seconds N] [--rate N]` floods a running stack and exits 1 when the reader saw
anything but 200, or a refusal was not a problem with Retry-After. `tests/network/test_bulkheads.py` runs it briefly.

logins    wrong ones, each for an account of its own, from 200 addresses of 127/8, which each stay within their limit
payments  at the sandbox's slow provider (`tok_timeout`), each of an order of its own
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from contracts.http import models
from contracts.http.client import BackendClient
from devstack.layout import DEFAULT_DATA_DIR, Layout

from devstack import state

ADDRESSES = 200
_READS_EVERY_SECONDS = 0.1
_ORDERS_PER_CUSTOMER = 5
PASSWORD = "floods-and-bulkheads"


@dataclass
class Seen:
    """What came back: counts by status, and the refusals that were not as they should be."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, response: httpx.Response) -> None:
        """Count an answer; a refusal must be a problem that says when to come again."""
        status = response.status_code
        self.statuses[status] += 1
        kind = response.headers.get("content-type", "")
        if status in (429, 503) and ("retry-after" not in response.headers or kind != "application/problem+json"):
            self.wrong.append(f"{status} {kind} {dict(response.headers)} {response.text[:200]}")


def _client(url: str, address: str) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(local_address=address)
    return httpx.AsyncClient(base_url=url, transport=transport, timeout=30)


def _address() -> str:
    return f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"


async def customer(http: httpx.AsyncClient) -> BackendClient:
    """Somebody new, logged in."""
    client = BackendClient(http)
    email = f"{uuid.uuid4()}@example.com"
    await client.register(models.RegisterRequest(email=email, password=PASSWORD, display_name="A Soak"))
    client.access_token = (await client.login(models.LoginRequest(email=email, password=PASSWORD))).data.access_token
    return client


async def order(client: BackendClient, product_id: str) -> models.Order:
    """One piece of a product, ordered."""
    body = models.CreateOrderRequest(items=[models.OrderLine(product_id=product_id, quantity=1)])
    return (await client.create_order(body, idempotency_key=str(uuid.uuid4()))).data


@asynccontextmanager
async def reading(url: str, product_id: str) -> AsyncIterator[Seen]:
    """A logged-in reader, ten times a second, for as long as the block takes; what it saw."""
    seen = Seen()
    async with _client(url, _address()) as http:
        client = await customer(http)
        mine = await order(client, product_id)
        paths = (f"/v1/orders/{mine.id}", "/v1/products?limit=5", "/v1/me", "/v1/orders?limit=5", "/v1/me/overview")
        headers = {"authorization": f"Bearer {client.access_token}"}

        async def read(number: int) -> None:
            seen.note(await http.get(paths[number % len(paths)], headers=headers))

        async def forever() -> None:
            await _steadily(1 / _READS_EVERY_SECONDS, 86400, read)

        task = asyncio.create_task(forever())
        try:
            yield seen
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _steadily(rate: float, times: float, action: Callable[[int], Awaitable[None]]) -> None:
    """`action(n)` so many times a second, whether the ones before have ended or not."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        number = 0
        while number < times:
            group.create_task(_coroutine(action, number))
            number += 1
            await asyncio.sleep(max(0.0, began + number / rate - loop.time()))


async def _coroutine(action: Callable[[int], Awaitable[None]], number: int) -> None:
    await action(number)


async def flood_logins(url: str, rate: float, seconds: float) -> Seen:
    """Wrong logins from `ADDRESSES` addresses in turn."""
    seen = Seen()
    prefix = random.randrange(1, 255)
    clients = [_client(url, f"127.{prefix}.{n // 200}.{n % 200 + 1}") for n in range(ADDRESSES)]

    async def log_in(number: int) -> None:
        body = {"email": f"{uuid.uuid4()}@example.com", "password": PASSWORD}
        seen.note(await clients[number % ADDRESSES].post("/v1/auth/login", json=body))

    await _steadily(rate, rate * seconds, log_in)
    await asyncio.gather(*(client.aclose() for client in clients))
    return seen


async def unpaid_orders(url: str, product_id: str, count: int) -> list[tuple[BackendClient, str]]:
    """So many orders, each with the client of its customer; made by few customers at a time."""
    found: list[tuple[BackendClient, str]] = []
    limit = asyncio.Semaphore(4)

    async def one_customer() -> None:
        async with limit:
            client = await customer(_client(url, _address()))
            found.extend([(client, (await order(client, product_id)).id) for _ in range(_ORDERS_PER_CUSTOMER)])

    await asyncio.gather(*(one_customer() for _ in range(-(-count // _ORDERS_PER_CUSTOMER))))
    return found[:count]


async def flood_payments(orders: Sequence[tuple[BackendClient, str]], rate: float) -> Seen:
    """Pays each order once with the token on which the provider does not answer in time."""
    seen = Seen()

    async def pay(number: int) -> None:
        client, order_id = orders[number]
        headers = {"authorization": f"Bearer {client.access_token}", "idempotency-key": str(uuid.uuid4())}
        body = {"payment_token": "tok_timeout"}
        seen.note(await client.http.post(f"/v1/orders/{order_id}/payment", json=body, headers=headers))

    await _steadily(rate, len(orders), pay)
    for client, _ in orders:
        await client.http.aclose()
    return seen


async def plenty(url: str, admin: models.LoginRequest) -> str:
    """The id of a new product that does not run out."""
    async with _client(url, _address()) as http:
        client = BackendClient(http)
        client.access_token = (await client.login(admin)).data.access_token
        body = models.CreateProductRequest(
            sku=f"SOAK-{uuid.uuid4().hex[:20].upper()}",
            name="Soak",
            price=models.Price(amount_minor=1, currency="EUR"),
            initial_stock=1_000_000,
        )
        return (await client.create_product(body)).data.id


async def soak(url: str, product_id: str, what: str, rate: float, seconds: float) -> tuple[Seen, Seen]:
    """One flood beside a reader: what the reader saw, and what the flood."""
    if what == "logins":
        async with reading(url, product_id) as reader:
            flood = await flood_logins(url, rate, seconds)
    else:
        orders = await unpaid_orders(url, product_id, int(rate * seconds))
        async with reading(url, product_id) as reader:
            flood = await flood_payments(orders, rate)
    return reader, flood


def main() -> int:
    """Flood, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("logins", "payments"))
    parser.add_argument("--data-dir", type=Path, default=DEFAULT_DATA_DIR, help="of the stack")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    arguments = parser.parse_args()
    running = state.read(Layout(arguments.data_dir.resolve()))
    if running is None or not running.ready:
        sys.exit(f"no stack runs on {arguments.data_dir}")
    url, account = running.endpoints["public"], running.demo["admin"]
    admin = models.LoginRequest(email=account["email"], password=account["password"])

    async def run() -> tuple[Seen, Seen]:
        return await soak(url, await plenty(url, admin), arguments.what, arguments.rate, arguments.seconds)

    reader, flood = asyncio.run(run())
    print(f"reader {dict(reader.statuses)}\nflood  {dict(flood.statuses)}")
    for line in (reader.wrong + flood.wrong)[:10]:
        print(f"not a problem with Retry-After: {line}")
    return 0 if set(reader.statuses) == {200} and not reader.wrong and not flood.wrong else 1


if __name__ == "__main__":
    sys.exit(main())
