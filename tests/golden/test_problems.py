"""Every reason of `api/errors.yaml` as a client sees it: the status, the headers that matter, and the problem+json.

`problems/REASON.txt` is what a request to the running platform was answered; or, where it takes a fault or a long time to
bring a reason about, what the BFF renders of it. Its first line says which.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import goldens
import httpx
import pytest
from chassis.errors import ServiceError
from chassis.http.answers import problem_answer
from contracts.bff.v1.client import BackendClient
from contracts.errors import ERRORS

from conftest import People, new_key

NOWHERE = "01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b21"
# What a problem's own status or reason asks for; the others are the same on every answer (tests/network/test_edge.py).
_HEADERS = {
    "accept", "accept-encoding", "allow", "cache-control", "content-type", "idempotency-replayed", "retry-after",
    "www-authenticate",
}  # fmt: skip
LOGIN = {"email": f"{NOWHERE}@example.com", "password": "not the password"}


def written(how: str, status: int, headers: httpx.Headers, body: Any) -> str:
    names = goldens.Names({NOWHERE: "nowhere"})
    body["request_id"] = names.of(body["request_id"], "request")
    lines = [how, "", f"HTTP {status}"]
    lines += [f"{name}: {value}" for name, value in sorted(headers.items()) if name in _HEADERS]
    return names.text("\n".join([*lines, "", goldens.shown(body)]))


class Client:
    """Requests as somebody; the last one's answer is the one that is looked at."""

    def __init__(self, people: People, somebody: BackendClient | None = None) -> None:
        self.people = people
        self.token = somebody.access_token if somebody else None

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            sent["authorization"] = f"Bearer {self.token}"
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return await self.people.http.request(method, path, headers=sent, **content)

    async def order(self, body: Any, key: str = "") -> httpx.Response:
        return await self("POST", "/v1/orders", body, idempotency_key=key or new_key())

    async def placed(self) -> str:
        """The id of an order."""
        answer = await self.order(lines((await self.people.product()).id))
        return str(answer.json()["id"])

    async def pay(self, means: str, **headers: str) -> httpx.Response:
        path = f"/v1/orders/{await self.placed()}/payment"
        return await self("POST", path, {"payment_token": means}, idempotency_key=new_key(), **headers)


async def nobody(people: People) -> Client:
    return Client(people)


async def customer(people: People) -> Client:
    return Client(people, (await people.newcomer())[0])


async def admin(people: People) -> Client:
    return Client(people, await people.role("admin"))


def lines(*products: str, quantity: int = 1) -> dict[str, Any]:
    return {"items": [{"product_id": product, "quantity": quantity} for product in products]}


def product(sku: str = "", currency: str = "EUR") -> dict[str, Any]:
    price = {"amount_minor": 100, "currency": currency}
    return {"sku": sku or f"G-{uuid.uuid4().hex[:20].upper()}", "name": "lamp", "price": price, "initial_stock": 1}


async def email_taken(client: Client) -> httpx.Response:
    body = {"email": f"{uuid.uuid4()}@example.com", "password": "a long password", "display_name": "Ada"}
    await client("POST", "/v1/auth/register", body)
    return await client("POST", "/v1/auth/register", body)


async def sku_taken(client: Client) -> httpx.Response:
    body = product()
    await client("POST", "/v1/admin/products", body)
    return await client("POST", "/v1/admin/products", body)


async def of_stock(client: Client, delta: int) -> httpx.Response:
    path = f"/v1/admin/products/{(await client.people.product()).id}/stock"
    return await client("POST", path, {"delta": delta, "reason": "counted"}, idempotency_key=new_key())


async def quantity(client: Client, pieces: int, stock: int) -> httpx.Response:
    return await client.order(lines((await client.people.product(stock)).id, quantity=pieces))


async def illegal_transition(client: Client) -> httpx.Response:
    path = f"/v1/orders/{await client.placed()}/cancellation"
    await client("POST", path, {"reason": "changed my mind"})
    return await client("POST", path, {"reason": "changed my mind"})


async def mixed_currencies(client: Client) -> httpx.Response:
    found = [(await client.people.product(currency=currency)).id for currency in ("EUR", "USD")]
    return await client.order(lines(*found))


async def key_reused(client: Client) -> httpx.Response:
    key, found = new_key(), (await client.people.product()).id
    await client.order(lines(found), key)
    return await client.order(lines(found, quantity=2), key)


Request = Callable[[Client], Awaitable[httpx.Response]]
# By reason: who asks, and for what.
REQUESTS: dict[str, tuple[Callable[[People], Awaitable[Client]], Request]] = {
    "MALFORMED_REQUEST": (nobody, lambda c: c("POST", "/v1/auth/login", b"{", content_type="application/json")),
    "IDEMPOTENCY_KEY_REQUIRED": (customer, lambda c: c("POST", "/v1/orders", lines(NOWHERE))),
    "IDEMPOTENCY_KEY_REFUSED": (nobody, lambda c: c("POST", "/v1/auth/login", LOGIN, idempotency_key=new_key())),
    "CONDITION_REFUSED": (nobody, lambda c: c("GET", f"/v1/products/{NOWHERE}", if_match='"3"')),
    "UNAUTHENTICATED": (nobody, lambda c: c("GET", "/v1/me")),
    "INVALID_CREDENTIALS": (nobody, lambda c: c("POST", "/v1/auth/login", LOGIN)),
    "INVALID_REFRESH_TOKEN": (nobody, lambda c: c("POST", "/v1/auth/refresh", {"refresh_token": "x"})),
    "PAYMENT_DECLINED": (customer, lambda c: c.pay("tok_declined")),
    "PERMISSION_DENIED": (customer, lambda c: c("GET", "/v1/admin/users")),
    "NOT_FOUND": (nobody, lambda c: c("GET", f"/v1/products/{NOWHERE}")),
    "METHOD_NOT_ALLOWED": (nobody, lambda c: c("DELETE", "/v1/products")),
    "NOT_ACCEPTABLE": (nobody, lambda c: c("GET", "/v1/products", accept="image/png")),
    "EMAIL_TAKEN": (nobody, email_taken),
    "SKU_TAKEN": (admin, sku_taken),
    "OUT_OF_STOCK": (customer, lambda c: quantity(c, 2, stock=1)),
    "STOCK_BELOW_ZERO": (admin, lambda c: of_stock(c, -101)),
    "ILLEGAL_TRANSITION": (customer, illegal_transition),
    "STALE_VERSION": (customer, lambda c: c.pay("tok_approved", if_match='"7"')),
    "TOO_LARGE": (nobody, lambda c: c("POST", "/v1/auth/login", {"email": "a" * 70_000})),
    "UNSUPPORTED_MEDIA_TYPE": (nobody, lambda c: c("POST", "/v1/auth/login", b"{}", content_type="text/plain")),
    "UNSUPPORTED_CONTENT_CODING": (nobody, lambda c: c("POST", "/v1/auth/login", {}, content_encoding="gzip")),
    "INVALID_ARGUMENT": (customer, lambda c: c.order(lines(NOWHERE, quantity=0))),
    "UNKNOWN_PRODUCT": (customer, lambda c: c.order(lines(NOWHERE))),
    "MIXED_CURRENCIES": (customer, mixed_currencies),
    "UNKNOWN_CURRENCY": (admin, lambda c: c("POST", "/v1/admin/products", product(currency="XXQ"))),
    "INVALID_CURSOR": (nobody, lambda c: c("GET", "/v1/products?cursor=x")),
    "IDEMPOTENCY_KEY_REUSED": (customer, key_reused),
    "PAYMENT_PROVIDER_ERROR": (customer, lambda c: c.pay("tok_error")),
    "PAYMENT_TIMEOUT": (customer, lambda c: c.pay("tok_timeout")),
}


@pytest.mark.parametrize("reason", REQUESTS)
async def test_a_request_is_refused_as_it_was(people: People, reason: str) -> None:
    """`make golden` shows what has changed and writes it."""
    who, request = REQUESTS[reason]
    answer = await request(await who(people))
    problem = answer.json()
    assert problem.get("type") == f"urn:backend:problem:{ERRORS[reason].slug}", answer.text
    goldens.check(
        f"problems/{reason}.txt", written("A request is answered:", answer.status_code, answer.headers, problem)
    )


@pytest.mark.parametrize("reason", sorted(ERRORS.keys() - REQUESTS.keys()))
def test_a_reason_is_rendered_as_it_was(reason: str) -> None:
    """`make golden` shows what has changed and writes it."""
    answer = problem_answer(ServiceError(reason), new_key())
    problem = httpx.Response(200, content=bytes(answer.body)).json()
    headers = httpx.Headers(answer.raw_headers)
    goldens.check(f"problems/{reason}.txt", written("The BFF renders:", answer.status_code, headers, problem))


def test_every_reason_has_a_golden_file() -> None:
    assert REQUESTS.keys() <= ERRORS.keys()
    assert goldens.WRITING or goldens.names_in("problems") == set(ERRORS)
