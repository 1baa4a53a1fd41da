"""From a login to an order that is given back, through the public API of whatever runs at $URL: `make smoke`.

Of a deployed platform, after a rollout. It leaves an order that is cancelled; with $PAYMENT_TOKEN one that is paid (tok_approved, of the
sandbox). Without $EMAIL and $PASSWORD it registers somebody. It orders the first product with stock, so there has to be one.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid

import httpx
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient

_TIMEOUT_SECONDS = 15.0


class SmokeError(Exception):
    """The platform does not do what it is for; the message says which step."""


async def smoke(url: str) -> str:
    """Take the way of a customer, and say where it ended.

    Raises:
        SmokeError: it ended early.
        ApiError: the API has refused a step.
        httpx.HTTPError: there is no answer.
    """
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_SECONDS) as http:
        contact = await http.get("/.well-known/security.txt")
        if contact.status_code != httpx.codes.OK:
            raise SmokeError(f"security.txt: {contact.status_code}")
        client = await _logged_in(http)
        products = (await client.list_products(limit=100)).data.items
        product = next((one for one in products if one.available > 0), None)
        if product is None:
            raise SmokeError("there is no product with stock to order")
        items = [models.OrderLine(product_id=product.id, quantity=1)]
        order = (
            await client.create_order(models.CreateOrderRequest(items=items), idempotency_key=str(uuid.uuid4()))
        ).data
        if token := os.environ.get("PAYMENT_TOKEN"):
            payment = models.PaymentRequest(payment_token=token)
            order = (await client.pay_order(order.id, payment, idempotency_key=str(uuid.uuid4()))).data
        else:
            order = (await client.cancel_order(order.id, models.CancellationRequest(reason="smoke test"))).data
        wanted = "paid" if token else "cancelled"
        if order.status != wanted:
            raise SmokeError(f"the order {order.id} is {order.status}, and not {wanted}")
        await client.logout()
        return f"{url}: order {order.id} is {order.status}"


async def _logged_in(http: httpx.AsyncClient) -> BackendClient:
    client = BackendClient(http)
    email, password = os.environ.get("EMAIL", ""), os.environ.get("PASSWORD", "")
    if not email:
        email, password = f"smoke-{uuid.uuid4()}@example.com", str(uuid.uuid4())
        await client.register(models.RegisterRequest(email=email, password=password, display_name="Smoke Test"))
    client.access_token = (await client.login(models.LoginRequest(email=email, password=password))).data.access_token
    return client


def main() -> None:
    """Exit 1 and say at what, when the way cannot be gone to its end."""
    url = os.environ.get("URL", "")
    if not url:
        sys.exit("URL is not set: where the API is")
    try:
        print(asyncio.run(smoke(url)))
    except (SmokeError, ApiError, httpx.HTTPError) as error:
        sys.exit(f"{url}: {error or type(error).__name__}")


if __name__ == "__main__":
    main()
