"""Demo data, through the public API like any client's: products, three accounts, an order in every state."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import uuid

import asyncpg
import httpx
from contracts.http import models
from contracts.http.client import ApiError, BackendClient

from devstack import postgres, services
from devstack.layout import Layout
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
    async with httpx.AsyncClient(base_url=layout.endpoints()["public"], timeout=30) as http:
        admin, support, customer = [await _log_in(http, a) for a in accounts(secrets).values()]
        products = await _products(admin)
        await _orders(layout, secrets, customer, support, products)
    (layout.data_dir / _MARKER).touch()


async def _first_accounts(layout: Layout, secrets: Secrets) -> None:
    names = {"admin": "Alma Admin", "support": "Sami Support", "customer": "Carla Customer"}
    environment = {**os.environ, **services.environment("user", layout, secrets)}
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


async def _products(admin: BackendClient) -> list[models.Product]:
    chance = random.Random(42)
    wanted = [
        models.CreateProductRequest(
            sku=f"{good[:4].upper().strip()}-{kind[:5].upper().replace(' ', '-')}-{colour[:3].upper()}".replace(
                "'", ""
            ),
            name=f"{kind} {good.lower()}, {colour}",
            price=models.Money(amount_minor=base + 100 * chance.randrange(-3, 12), currency="EUR"),
            initial_stock=chance.choice((0, 3, 12, 40, 75, 120, 250)),
        )
        for good, (base, kinds) in _GOODS.items()
        for kind in kinds
        for colour in _COLOURS
    ]
    gate = asyncio.Semaphore(_AT_ONCE)

    async def create(product: models.CreateProductRequest) -> models.Product | None:
        async with gate:
            try:
                return (await admin.create_product(product)).data
            except ApiError as error:
                if error.status == 409:
                    return None
                raise

    return [product for product in await asyncio.gather(*map(create, wanted)) if product is not None]


async def _orders(
    layout: Layout, secrets: Secrets, customer: BackendClient, support: BackendClient, products: list[models.Product]
) -> None:
    stocked = [product for product in products if product.available > 10]
    chance = random.Random(7)

    async def place(paid: bool = True) -> models.Order:
        lines = [
            models.OrderLine(product_id=product.id, quantity=chance.randrange(1, 4))
            for product in chance.sample(stocked, chance.randrange(1, 4))
        ]
        order = (
            await customer.create_order(models.CreateOrderRequest(items=lines), idempotency_key=str(uuid.uuid4()))
        ).data
        if paid:
            payment = models.PaymentRequest(payment_token="tok_approved")  # noqa: S106 - the sandbox's test token
            order = (await customer.pay_order(order.id, payment, idempotency_key=str(uuid.uuid4()))).data
        return order

    shipment = models.ShipmentRequest(carrier="DHL", tracking_number="JD014600003812345678")
    await place(paid=False)
    await place()
    shipped = await place()
    await support.ship_order(shipped.id, shipment)
    delivered = await place()
    await support.ship_order(delivered.id, shipment)
    await support.deliver_order(delivered.id)
    refunded = await place()
    await support.refund_order(refunded.id, models.RefundRequest(reason="Arrived broken"))
    cancelled = await place(paid=False)
    await customer.cancel_order(cancelled.id, models.CancellationRequest(reason="Changed my mind"))
    expired = await place(paid=False)
    # Fifteen minutes cannot be waited for: its time is moved, the service's own sweep does the rest.
    connection = await asyncpg.connect(postgres.superuser_url(layout, secrets, "orderdb"))
    try:
        await connection.execute("UPDATE orders SET expires_at = now() WHERE id = $1", uuid.UUID(expired.id))
    finally:
        await connection.close()
