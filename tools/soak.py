"""What must hold: a logged-in reader, ten times a second, sees nothing but 200 beside whatever others do.

`tools/soak.py idle|anything|logins|payments|all [--data-dir D] [--seconds N] [--rate N] [--network CIDR]` does one of these to a running
stack, or one after the other, and exits 1 when the reader saw anything but 200, a refusal was not a problem with
Retry-After, or what stands below did not hold. `tests/network/test_bulkheads.py` runs the floods briefly.

idle      five addresses, then forty, take all of the edge's connections that they get and say nothing: newcomers from other
          addresses, five a second, are all served
anything  100,000 requests with methods, hosts, paths and headers that nobody used before: no process has grown by more than
          a tenth (after 10,000 of them)
logins    wrong ones, each for an account of its own, from 200 addresses, which each stay within their limit
payments  at the sandbox's slow provider (`tok_timeout`), each of an order of its own

Addresses are of 127/8, or of a network that is all this machine's: `ip route add local 10.77.0.0/16 dev lo`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

import httpx
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient
from devstack.layout import DEFAULT_DATA_DIR, Layout
from devstack.state import StackState
from fuzz.crowd import crowd
from fuzz.watch import private_bytes

from devstack import state

ADDRESSES = 200
LOOPBACK = IPv4Network("127.0.0.0/8")
_READS_EVERY_SECONDS = 0.1
_ORDERS_PER_CUSTOMER = 5
# Shorter than an access token's life.
_RENEW_SECONDS = 200.0
# What everybody together may have of one edge (`Options.max_connections`).
_CONNECTIONS = 4096
_NEWCOMERS_A_SECOND = 5
_WARM_UP, _REQUESTS = 10_000, 100_000
_GROWTH = 1.10
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


def address_of(network: IPv4Network, source: random.Random | None = None) -> str:
    """Anybody's."""
    return str(network[(source or random.Random()).randrange(256, network.num_addresses - 256)])


async def customer(http: httpx.AsyncClient) -> tuple[BackendClient, models.TokenPair]:
    """Somebody new, logged in, and the tokens they have."""
    client, login = BackendClient(http), models.LoginRequest(email=f"{uuid.uuid4()}@example.com", password=PASSWORD)
    await client.register(models.RegisterRequest(email=login.email, password=PASSWORD, display_name="A Soak"))
    tokens = (await client.login(login)).data
    client.access_token = tokens.access_token
    return client, tokens


async def order(client: BackendClient, product_id: str) -> models.Order:
    """One piece of a product, ordered."""
    body = models.CreateOrderRequest(items=[models.OrderLine(product_id=product_id, quantity=1)])
    return (await client.create_order(body, idempotency_key=str(uuid.uuid4()))).data


@asynccontextmanager
async def reading(url: str, product_id: str, network: IPv4Network = LOOPBACK) -> AsyncIterator[Seen]:
    """A logged-in reader, ten times a second, for as long as the block takes; what it saw."""
    seen, clock = Seen(), asyncio.get_running_loop().time
    async with _client(url, address_of(network)) as http:
        client, tokens = await customer(http)
        renewed = clock()
        mine = await order(client, product_id)
        paths = (f"/v1/orders/{mine.id}", "/v1/products?limit=5", "/v1/me", "/v1/orders?limit=5", "/v1/me/overview")

        async def read(number: int) -> None:
            nonlocal tokens, renewed
            if clock() - renewed > _RENEW_SECONDS:
                renewed = clock()
                spent = str(tokens.refresh_token)
                tokens = (await client.refresh_tokens(models.RefreshRequest(refresh_token=spent))).data
                client.access_token = tokens.access_token
            headers = {"authorization": f"Bearer {client.access_token}"}
            seen.note(await http.get(paths[number % len(paths)], headers=headers))

        async def forever() -> None:
            await _steadily(1 / _READS_EVERY_SECONDS, 86400, read)

        task = asyncio.create_task(forever())
        try:
            yield seen
        finally:
            stopped = task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            # One that could not read on has not seen 200.
            if not stopped and isinstance(ended, BaseException):
                raise ended


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


async def flood_logins(url: str, rate: float, seconds: float, network: IPv4Network = LOOPBACK) -> Seen:
    """Wrong logins from `ADDRESSES` addresses in turn."""
    seen = Seen()
    clients = [_client(url, address_of(network)) for _ in range(ADDRESSES)]

    async def log_in(number: int) -> None:
        body = {"email": f"{uuid.uuid4()}@example.com", "password": PASSWORD}
        seen.note(await clients[number % ADDRESSES].post("/v1/auth/login", json=body))

    await _steadily(rate, rate * seconds, log_in)
    await asyncio.gather(*(client.aclose() for client in clients))
    return seen


async def unpaid_orders(
    url: str, product_id: str, count: int, network: IPv4Network = LOOPBACK
) -> list[tuple[BackendClient, str]]:
    """So many orders, each with the client of its customer; made by few customers at a time."""
    found: list[tuple[BackendClient, str]] = []
    limit = asyncio.Semaphore(4)

    async def one_customer() -> None:
        async with limit:
            client, _ = await customer(_client(url, address_of(network)))
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
    async with _client(url, address_of(LOOPBACK)) as http:
        client = BackendClient(http)
        client.access_token = (await client.login(admin)).data.access_token
        body = models.CreateProductRequest(
            sku=f"SOAK-{uuid.uuid4().hex[:20].upper()}",
            name="Soak",
            price=models.Price(amount_minor=1, currency="EUR"),
            initial_stock=1_000_000,
        )
        return (await client.create_product(body)).data.id


async def hold_idle(url: str, seconds: float, network: IPv4Network = LOOPBACK) -> Seen:
    """Five addresses, then forty, take every connection they get, and are held; what newcomers see meanwhile."""
    seen, port = Seen(), httpx.URL(url).port or 80
    held: list[asyncio.StreamWriter] = []

    async def take(address: str, times: int) -> None:
        for _ in range(times):
            try:
                held.append((await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)))[1])
            except OSError:
                # That address is refused; it tries again, as an attacker would.
                await asyncio.sleep(0.01)

    async def newcomer(_: int) -> None:
        async with _client(url, address_of(network)) as http:
            try:
                seen.note(await http.get("/v1/products?limit=1"))
            except httpx.HTTPError as error:
                seen.statuses[0] += 1
                seen.wrong.append(f"a newcomer: {error!r}")

    arriving = asyncio.create_task(_steadily(_NEWCOMERS_A_SECOND, _NEWCOMERS_A_SECOND * seconds, newcomer))
    for addresses in (5, 40):
        await asyncio.gather(*(take(address_of(network), _CONNECTIONS // addresses) for _ in range(addresses)))
    await arriving
    for writer in held:
        writer.transport.abort()
    return seen


async def ask_anything(
    url: str, processes: Mapping[str, int], network: IPv4Network = LOOPBACK
) -> tuple[Seen, list[str]]:
    """Requests that nobody made before, and what has grown of it.

    Args:
        url: of the edge.
        processes: the pid of each.
        network: the requests come from `ADDRESSES` of its addresses; some from the first, for 127.0.0.1 is one to Envoy that others
            are not.
    """
    port, addresses = httpx.URL(url).port or 80, [address_of(network) for _ in range(ADDRESSES)]

    def address(source: random.Random) -> str:
        # As often as one may connect.
        return str(network[1]) if source.random() < 1 / 30 else source.choice(addresses)

    await crowd(port, _WARM_UP, 1, address)
    before = {name: private_bytes(pid) for name, pid in processes.items()}
    answers = await crowd(port, _REQUESTS, 2, address)
    seen, grown = Seen(Counter({status or 0: count for status, count in answers.items()})), []
    for name, pid in processes.items():
        after = private_bytes(pid)
        print(
            f"  {name:14} {before[name] / 2**20:7.1f} MiB, then {after / 2**20:7.1f} ({after / before[name] - 1:+.1%})"
        )
        if after > before[name] * _GROWTH:
            grown.append(f"{name} has grown by {after / before[name] - 1:.1%}")
    wrong = [
        f"{status}: {count} times" for status, count in seen.statuses.items() if status == 0 or status in (500, 502)
    ]
    return seen, grown + wrong


async def soak(
    url: str, product_id: str, what: str, rate: float, seconds: float, network: IPv4Network = LOOPBACK
) -> tuple[Seen, Seen]:
    """One flood beside a reader: what the reader saw, and what the flood."""
    if what == "idle":
        async with reading(url, product_id, network) as reader:
            flood = await hold_idle(url, seconds, network)
    elif what == "logins":
        async with reading(url, product_id, network) as reader:
            flood = await flood_logins(url, rate, seconds, network)
    else:
        orders = await unpaid_orders(url, product_id, int(rate * seconds), network)
        async with reading(url, product_id, network) as reader:
            flood = await flood_payments(orders, rate)
    return reader, flood


async def holds(
    running: StackState, product_id: str, what: str, rate: float, seconds: float, network: IPv4Network
) -> bool:
    """Whether one of these is nobody else's trouble; says what was seen."""
    url = running.endpoints["public"]
    print(what, flush=True)
    wrong: list[str] = []
    if what == "anything":
        processes = {process.name: process.pid for process in running.processes if process.pid is not None}
        async with reading(url, product_id, network) as reader:
            flood, wrong = await ask_anything(url, processes, network)
    else:
        reader, flood = await soak(url, product_id, what, rate, seconds, network)
        wrong = flood.wrong
        if what == "idle" and set(flood.statuses) != {200}:
            wrong.append("a newcomer was refused")
    print(f"  reader {dict(reader.statuses)}\n  others {dict(flood.statuses)}", flush=True)
    for line in (reader.wrong + wrong)[:10]:
        print(f"  not as it should be: {line}")
    return set(reader.statuses) == {200} and not reader.wrong and not wrong


def main() -> int:
    """Soak, and say what was seen."""
    kinds = ("idle", "anything", "logins", "payments")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*kinds, "all"))
    parser.add_argument("--data-dir", type=Path, default=DEFAULT_DATA_DIR, help="of the stack")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    parser.add_argument("--network", type=IPv4Network, default=LOOPBACK, help="whose addresses everybody has")
    arguments = parser.parse_args()
    running = state.read(Layout(arguments.data_dir.resolve()))
    if running is None or not running.ready:
        sys.exit(f"no stack runs on {arguments.data_dir}")
    url, account = running.endpoints["public"], running.demo["admin"]
    admin = models.LoginRequest(email=account["email"], password=account["password"])
    # A file for each connection that is held.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    async def run() -> bool:
        product = await plenty(url, admin)
        chosen = kinds if arguments.what == "all" else (arguments.what,)
        return all(
            [
                await holds(running, product, what, arguments.rate, arguments.seconds, arguments.network)
                for what in chosen
            ]
        )

    return 0 if asyncio.run(run()) else 1


if __name__ == "__main__":
    sys.exit(main())
