"""No password, token or cookie in any log or span, whatever happens to the request that carries it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

import pytest
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient
from devstack.console import spans
from devstack.logs import files
from devstack.logs.selection import Selection

from conftest import People, Platform, new_key, order_of


async def test_no_secret_reaches_a_log_or_a_span(people: People) -> None:
    people.http.headers.update(people.platform.traced)
    client, login = await people.newcomer()
    pair = (await client.login(login)).data
    web = await client.login(login, x_client="web")
    cookie, device = (c.split(";")[0].partition("=")[2].strip('"') for c in web.headers.get_list("set-cookie"))
    await people.http.post("/v1/auth/refresh", json={}, headers={"cookie": f"__Secure-refresh_token={cookie}"})
    assert isinstance(pair.refresh_token, str)
    client.access_token = pair.access_token
    product = await people.product()
    order = (await client.create_order(order_of((product, 1)), idempotency_key=new_key())).data
    payment = models.PaymentRequest(payment_token="tok_very_secret_token_1234")
    with pytest.raises(ApiError):
        await client.pay_order(order.id, payment, idempotency_key=new_key())
    wrong = models.LoginRequest(email=login.email, password="wrong-password-canary-5678")
    with pytest.raises(ApiError):
        await BackendClient(people.http).login(wrong)
    # Where a careless client might put one, and where a careless server might echo one.
    await people.http.get(f"/v1/products?q={pair.access_token[:90]}")
    await people.http.get(f"/v1/nope?access_token={pair.access_token}")
    await people.http.post("/v1/auth/login", content=f'{{"password": "{login.password}"')
    await people.http.get("/v1/me", headers={"authorization": f"Basic {login.password}"})
    secrets = people.platform.secrets
    hidden = {
        "password": login.password,
        "wrong password": wrong.password,
        "access token": pair.access_token.rsplit(".", 1)[1],
        "refresh token": pair.refresh_token,
        "cookie": cookie,
        "device token": device,
        "payment token": payment.payment_token,
        "email": login.email,
        "valkey password": secrets.valkey_of("bff"),
        "database password": secrets["order_database_password"],
        "admin password": secrets["admin_password"],
        "authorization header": "Bearer ey",
    }
    logs = sorted(people.platform.layout.logs.glob("*.log*"))
    assert {path.stem for path in logs} >= {"bff", "edge", "order", "user", "postgres", "valkey", "supervisor"}
    for path in logs:
        text = path.read_text(errors="replace", encoding="utf-8")
        for what, secret in hidden.items():
            assert secret not in text, f"{what} is in {path.name}"
    spans = await traced(people.platform, people.http.headers)
    # Mails follow in their own time.
    assert {span.service for span in spans} - {"notification"} == {"edge", "limiter", "bff", "user", "order"}
    for what, secret in {**hidden, "query": "access_token", "product search": "?q="}.items():
        assert not [span for span in spans if secret in repr(span)], f"{what} is in a span"


async def traced(platform: Platform, headers: Mapping[str, str]) -> list[spans.Span]:
    """The spans of everything that was asked with these headers, once nothing more comes."""
    traceparent = headers[next(name for name in headers if name.startswith("x-trace-"))]
    trace_id, found = traceparent.split("-")[1], list[spans.Span]()
    async with asyncio.timeout(20):
        while True:
            await asyncio.sleep(1.5)
            known, found = found, list(spans.of_request(platform.layout.spans, trace_id).spans)
            if found and len(found) == len(known):
                return found


async def test_every_line_of_a_service_is_json_with_the_standard_fields(people: People) -> None:
    import json

    await BackendClient(people.http).list_products(limit=1)
    standard = {"time", "level", "service", "environment", "version", "instance_id", "event"}
    for name in ("bff", "user", "order"):
        lines = (people.platform.layout.logs / f"{name}.log").read_text(encoding="utf-8").splitlines()
        ours = [
            line for line in map(json.loads, lines) if not str(line.get("logger", "")).startswith(("envoy.", "launch"))
        ]
        assert ours
        for line in ours:
            assert standard <= line.keys(), line
        served = [line for line in ours if line["event"] in ("http", "rpc")]
        assert all(line["request_id"] for line in served)


async def test_one_request_has_one_id_in_every_log(people: People) -> None:
    response = await people.http.get("/v1/products?limit=3")
    request_id = response.headers["x-request-id"]
    async with asyncio.timeout(10):
        for name in ("edge", "bff", "order"):
            # Envoy writes its access log twice a second.
            while request_id not in (people.platform.layout.logs / f"{name}.log").read_text(encoding="utf-8"):
                await asyncio.sleep(0.2)


async def test_one_request_has_one_trace_in_every_log(people: People) -> None:
    response = await people.http.get("/v1/products?limit=3")
    selection, found = Selection(request_id=response.headers["x-request-id"]), dict[str, tuple[object, object]]()
    async with asyncio.timeout(10):
        while not {"edge", "bff", "order"} <= found.keys():
            await asyncio.sleep(0.2)
            for event in files.read(people.platform.layout.logs, selection):
                found[event.process] = event.fields.get("trace_id"), event.fields.get("span_id")
    (trace_id,) = {trace_id for trace_id, _ in found.values()}
    assert re.fullmatch("[0-9a-f]{32}", str(trace_id))
    # An Envoy's line names the span that the request came with; the edge's, its own.
    assert re.fullmatch("[0-9a-f]{16}", str(found["edge"][1]))
    assert found["edge"] == found["bff"] != found["order"]
