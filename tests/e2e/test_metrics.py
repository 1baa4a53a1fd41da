"""What happens to orders, payments, keys, sessions and caches is in the metrics; what documents name, there is."""

from __future__ import annotations

import re

import httpx
import inside
import pytest
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient
from devstack.layout import ROOT
from mesh.topology import TABLE

from conftest import People, Platform, new_key, order_of

_OF_ENVOY = re.compile(r"\benvoy_(?:cluster|http|listener|server|ratelimit|overload|sds|main|workers)_[a-z0-9_]+")
_OURS = re.compile(
    r"\bbackend_[a-z_]+_(?:total|seconds|running|waiting|users|connections|connected|max|slots)\b|\bbackend_degraded\b"
)
_LABELS = {"envoy_cluster_name", "envoy_http_conn_manager_prefix", "envoy_listener_address", "envoy_ratelimit_prefix"}


async def told(platform: Platform) -> dict[str, float]:
    """All series of all services, those of the same name added up."""
    found: dict[str, float] = {}
    for row in TABLE:
        if row.name != "edge":
            for name, value in (
                await inside.metrics(platform.status["endpoints"][f"{row.name}_ops"], "/metrics")
            ).items():
                found[name] = found.get(name, 0) + value
    return found


async def test_what_happens_to_orders_payments_keys_and_sessions_is_counted(people: People) -> None:
    before = await told(people.platform)
    client, login = await people.newcomer()
    product, key = await people.product(stock=3), new_key()
    order = (await client.create_order(order_of((product, 1)), idempotency_key=key)).data
    await client.create_order(order_of((product, 1)), idempotency_key=key)
    with pytest.raises(ApiError):
        await client.create_order(order_of((product, 2)), idempotency_key=key)
    with pytest.raises(ApiError):
        await client.create_order(order_of((product, 100)), idempotency_key=new_key())
    for token in ("tok_declined", "tok_approved"):
        payment = models.PaymentRequest(payment_token=token)
        if token == "tok_declined":
            with pytest.raises(ApiError):
                await client.pay_order(order.id, payment, idempotency_key=new_key())
        else:
            await client.pay_order(order.id, payment, idempotency_key=new_key())
    for _ in range(2):
        await client.get_order(order.id)
    with pytest.raises(ApiError):
        await BackendClient(people.http).login(models.LoginRequest(email=login.email, password="not-the-password"))
    pair = (await client.login(login)).data
    for agent in ("one", "two"):
        refresh = {"refresh_token": pair.refresh_token}
        await people.http.post("/v1/auth/refresh", json=refresh, headers={"user-agent": agent})
    after = await told(people.platform)
    session, orders = "user.v1.SessionService", "order.v1.OrderService"
    for name in (
        'backend_order_transitions_total{transition="placed"}',
        'backend_order_transitions_total{transition="pending_payment_to_paid"}',
        'backend_payments_total{outcome="approved"}',
        'backend_payments_total{outcome="declined"}',
        'backend_idempotent_requests_total{result="first"}',
        'backend_idempotent_requests_total{result="replay"}',
        'backend_idempotent_requests_total{result="conflict"}',
        'backend_sessions_granted_total{crowded="no"}',
        'backend_refresh_tokens_total{result="exchanged"}',
        'backend_refresh_tokens_total{result="reused"}',
        'backend_cache_reads_total{cache="order:order",result="hit"}',
        'backend_cache_floors_raised_total{cache="order:order"}',
        'backend_token_verifications_total{result="known"}',
        f'backend_rpc_requests_total{{method="{session}/LogIn",outcome="INVALID_CREDENTIALS"}}',
        f'backend_rpc_requests_total{{method="{orders}/CreateOrder",outcome="OUT_OF_STOCK"}}',
        'backend_limiter_decisions_total{domain="operations",decision="allowed"}',
    ):
        assert after[name] > before.get(name, 0), name
    assert after["backend_database_connections_max"] > 0
    assert after["backend_valkey_connected"] >= 3


async def test_every_metric_that_a_document_names_is_there(platform: Platform) -> None:
    async with httpx.AsyncClient() as client:
        texts = [(await client.get(f"{platform.status['endpoints'][f'{row.name}_ops']}/metrics")).text for row in TABLE]
    there = set(re.findall(r"^# TYPE (\S+)", "\n".join(texts), re.MULTILINE))
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        # Of a series, the family; whatever an expression reads of a histogram.
        names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in _OF_ENVOY.findall(text)}
        assert names - there <= _LABELS, path
        for name in _OURS.findall(text):
            assert f"`{name}`" in page, (path, name)
