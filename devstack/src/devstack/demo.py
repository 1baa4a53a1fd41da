"""Demo data: products, three accounts, an order in every state.

`python -m devstack.demo` is run by the supervisor once a stack is ready. It calls the BFF as the edge does, with the
edge's certificate: what a load sends counts against nobody's rate limit. An interrupted load is finished by the next.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
from chassis.certificate_files import client_context
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient
from mesh.topology import EDGE
from user import create_user

from devstack import postgres, services
from devstack.layout import Layout
from devstack.options import Options
from devstack.secrets import Secrets, load_or_create

_AT_ONCE = 8
_NAMES = {"admin": "Alma Admin", "support": "Sami Support", "customer": "Carla Customer"}

_GOODS = {
    "Mug": (990, ("Stoneware", "Enamel", "Porcelain", "Speckled", "Double-wall")),
    "Notebook": (1290, ("Dotted", "Ruled", "Plain", "Pocket", "Hardcover")),
    "Backpack": (6990, ("Canvas", "Rolltop", "Commuter", "Weekend", "Ultralight")),
    "Desk lamp": (4590, ("Brass", "Clamp", "Dimmable", "Folding", "Reading")),
    "Water bottle": (2490, ("Steel", "Insulated", "Glass", "Sport", "Wide-mouth")),
    "Headphones": (12900, ("Wireless", "Studio", "Folding", "Noise-cancelling", "Open-back")),
    "Keyboard": (8900, ("Mechanical", "Compact", "Split", "Low-profile", "Silent")),
    "Scarf": (3490, ("Merino", "Linen", "Checked", "Ribbed", "Silk")),
    "Chef's knife": (7900, ("Forged", "Carbon steel", "Santoku", "Paring", "Serrated")),
    "Houseplant": (1890, ("Monstera", "Pilea", "Snake", "Rubber", "Spider")),
}
_COLOURS = ("black", "sand", "forest", "ocean")


async def load(layout: Layout, secrets: Secrets, options: Options) -> None:
    """Load what is missing of it."""
    os.environ.update(services.environment("user", layout, secrets, options), LOG_LEVEL="error")
    accounts = secrets.demo_accounts()
    for role, account in accounts.items():
        await create_user.create(account["email"], _NAMES[role], [role], account["password"])
    async with _as_the_edge(layout, options) as http:
        admin, support, customer = [await _log_in(http, account) for account in accounts.values()]
        products = await _products(admin)
        await _orders(layout, secrets, customer, support, products)
    layout.demo_marker.touch()


def _as_the_edge(layout: Layout, options: Options) -> httpx.AsyncClient:
    """A client of the BFF's own listener."""
    secure = "mtls" not in options.without
    context = client_context(layout.certificates / "edge")
    # Its certificate names a SPIFFE id, no host; that anybody else of this stack listens there is out of the question.
    context.check_hostname = False
    transport = httpx.AsyncHTTPTransport(verify=context, http1=False, http2=True)
    url = f"{'https' if secure else 'http'}://127.0.0.1:{layout.port(EDGE.api)}"
    return httpx.AsyncClient(base_url=url, timeout=30, transport=transport, trust_env=False)


async def _log_in(http: httpx.AsyncClient, account: dict[str, str]) -> BackendClient:
    client = BackendClient(http)
    answer = await client.login(models.LoginRequest(email=account["email"], password=account["password"]))
    client.access_token = answer.data.access_token
    return client


async def _products(admin: BackendClient) -> list[str]:
    """Make the catalog; the ids of what has stock to sell, in a fixed order."""
    chance = random.Random(42)
    wanted = [
        models.CreateProductRequest(
            sku=f"{good[:4].upper().strip()}-{kind[:5].upper().replace(' ', '-')}-{colour[:3].upper()}".replace(
                "'", ""
            ),
            name=f"{kind} {good.lower()}, {colour}",
            price=models.Price(amount_minor=base + 100 * chance.randrange(-3, 12), currency="EUR"),
            initial_stock=chance.choice((0, 3, 12, 40, 75, 120, 250)),
        )
        for good, (base, kinds) in _GOODS.items()
        for kind in kinds
        for colour in _COLOURS
    ]
    gate = asyncio.Semaphore(_AT_ONCE)

    async def create(product: models.CreateProductRequest) -> None:
        async with gate, _already_done_is_fine():
            await admin.create_product(product)

    await asyncio.gather(*map(create, wanted))
    ids: dict[str, str] = {}
    cursor: str | None = None
    while True:
        page = (await admin.list_products(limit=100, cursor=cursor)).data
        ids |= {product.sku: product.id for product in page.items}
        if (cursor := page.next_cursor) is None:
            return [ids[product.sku] for product in wanted if product.initial_stock > 10]


async def _orders(
    layout: Layout, secrets: Secrets, customer: BackendClient, support: BackendClient, stocked: list[str]
) -> None:
    chance = random.Random(7)

    async def place(name: str, *, paid: bool = True) -> str:
        # Keys and bodies are the same on every load, so an interrupted one places nothing twice.
        lines = [
            models.OrderLine(product_id=product_id, quantity=chance.randrange(1, 4))
            for product_id in chance.sample(stocked, chance.randrange(1, 4))
        ]
        body = models.CreateOrderRequest(items=lines)
        order = (await customer.create_order(body, idempotency_key=f"demo-order-{name}")).data
        if paid:
            payment = models.PaymentRequest(payment_token="tok_approved")  # noqa: S106 - the sandbox's test token
            await customer.pay_order(order.id, payment, idempotency_key=f"demo-payment-{name}")
        return order.id

    shipment = models.ShipmentRequest(carrier="DHL", tracking_number="JD014600003812345678")
    await place("pending", paid=False)
    await place("paid")
    shipped = await place("shipped")
    async with _already_done_is_fine():
        await support.ship_order(shipped, shipment)
    delivered = await place("delivered")
    async with _already_done_is_fine():
        await support.ship_order(delivered, shipment)
    async with _already_done_is_fine():
        await support.deliver_order(delivered)
    refunded = await place("refunded")
    async with _already_done_is_fine():
        await support.refund_order(
            refunded, models.RefundRequest(reason="Arrived broken"), idempotency_key="demo-refund"
        )
    cancelled = await place("cancelled", paid=False)
    async with _already_done_is_fine():
        await customer.cancel_order(cancelled, models.CancellationRequest(reason="Changed my mind"))
    expired = await place("expired", paid=False)
    # Fifteen minutes cannot be waited for: its time is moved, the service's own sweep does the rest.
    connection = await asyncpg.connect(postgres.superuser_url(layout, secrets, "orderdb"))
    try:
        await connection.execute("UPDATE orders SET expires_at = now() WHERE id = $1", uuid.UUID(expired))
    finally:
        await connection.close()


@asynccontextmanager
async def _already_done_is_fine() -> AsyncIterator[None]:
    """A conflict means that an interrupted load has got this far before."""
    try:
        yield
    except ApiError as error:
        if error.status != 409:
            raise


def main() -> int:
    """Load it; 1 when it could not be, with the cause as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port-offset", type=int, required=True)
    parser.add_argument("--options", type=json.loads, required=True)
    arguments = parser.parse_args()
    layout = Layout(arguments.data_dir, arguments.port_offset)
    try:
        asyncio.run(load(layout, load_or_create(layout.secrets), Options(**arguments.options)))
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
