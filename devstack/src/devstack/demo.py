"""Demo data, through the public API like any client's: products, three accounts, an order in every state."""

from __future__ import annotations

import asyncio
import random
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx
from contracts.http import models
from contracts.http.client import ApiError, BackendClient

from devstack import postgres, services
from devstack.layout import Layout
from devstack.options import Options
from devstack.secrets import Secrets

_MARKER = "demo-loaded"
_AT_ONCE = 8

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


def accounts(secrets: Secrets) -> dict[str, dict[str, str]]:
    """The demo accounts by role."""
    return {
        "admin": {"email": "admin@example.com", "password": secrets.admin_password},
        "support": {"email": "support@example.com", "password": secrets.support_password},
        "customer": {"email": "customer@example.com", "password": secrets.customer_password},
    }


def is_loaded(layout: Layout) -> bool:
    """Whether this stack has its demo data."""
    return (layout.data_dir / _MARKER).exists()


async def load(layout: Layout, secrets: Secrets) -> None:
    """Load it. An interrupted load is finished by the next one: nothing is made twice."""
    await _first_accounts(layout, secrets)
    async with httpx.AsyncClient(
        base_url=layout.endpoints(())["public"], timeout=30, transport=_Patient(), trust_env=False
    ) as http:
        admin, support, customer = [await _log_in(http, a) for a in accounts(secrets).values()]
        products = await _products(admin)
        await _orders(layout, secrets, customer, support, products)
    (layout.data_dir / _MARKER).touch()


class _Patient(httpx.AsyncHTTPTransport):
    """Waits as long as a rate limit says, instead of failing: a load goes over the public API like any client's."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        while True:
            response = await super().handle_async_request(request)
            if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                return response
            await response.aclose()
            await asyncio.sleep(float(response.headers.get("retry-after", "1")))


async def _first_accounts(layout: Layout, secrets: Secrets) -> None:
    names = {"admin": "Alma Admin", "support": "Sami Support", "customer": "Carla Customer"}
    environment = {**services.base_environment(), **services.environment("user", layout, secrets, Options())}
    for role, account in accounts(secrets).items():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "user_service.create_user", account["email"], names[role], role,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await process.communicate(account["password"].encode() + b"\n")
        if process.returncode != 0:
            raise RuntimeError(f"the {role} account could not be created")


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
