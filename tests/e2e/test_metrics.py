"""What happens to orders, payments, keys, sessions and caches is in the metrics; what documents name, there is."""

from __future__ import annotations

import re

import httpx
import inside
import pytest
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient
from contracts.errors import ERRORS
from devstack.layout import ROOT
from mesh.observability import objectives
from mesh.observability.alerts import ALERTS
from mesh.observability.dashboards import dashboards
from mesh.topology import TABLE

from conftest import People, Platform, new_key, order_of

_OF_ENVOY = re.compile(r"\benvoy_(?:cluster|http|listener|server|ratelimit|overload|sds|main|vhost|workers)_[a-z0-9_]+")
_OURS = re.compile(
    r"\bbackend_[a-z_]+_(?:total|seconds|running|waiting|users|connections|connected|max|slots)\b|\bbackend_degraded\b"
)
_LABELS = {
    "envoy_cluster_name",
    "envoy_http_conn_manager_prefix",
    "envoy_listener_address",
    "envoy_ratelimit_prefix",
    "envoy_response_code_class",
    "envoy_route",
    "envoy_local_http_ratelimit_prefix",
}


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


_SERIES = re.compile(r"^([a-z_]+)(?:\{(.*)\})? [^ ]+$", re.MULTILINE)
_PAIR = re.compile(r'([a-z_]+)="([^"]*)"')
# In an expression: a metric, and what is asked of its labels; the labels that are kept.
_NAMED = re.compile(r"\b((?:backend|envoy|process|python)_\w+)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')
_BY = re.compile(r"\bby \(([^)]*)\)")
# What Prometheus adds to each series, and to histograms in these names.
_ADDED = {"service", "instance"}
# What Envoy tells of only once it has happened: tests/chaos/test_alerts.py makes it happen.
_FIRST_WHEN_IT_FAILS = {"envoy_cluster_ratelimit_failure_mode_allowed"}
_VALUES_WHEN_IT_FAILS = {"envoy_response_code_class": {"5"}, "outcome": {*ERRORS, "other"}}


async def test_every_metric_and_label_of_a_rule_or_a_dashboard_is_there(people: People) -> None:
    client, _ = await people.newcomer()
    order = await people.order(client, (await people.product(), 1))
    await client.pay_order(order.id, models.PaymentRequest(payment_token="tok_approved"), idempotency_key=new_key())
    await client.list_products()
    await client.get_my_notifications()
    admin = await people.role("admin")
    await admin.list_users(limit=1)
    await people.http.post("/v1/auth/refresh", json={"refresh_token": "of-nobody"})
    # By service, and by metric: its series' labels.
    there: dict[str, dict[str, list[dict[str, str]]]] = {}
    for row in TABLE:
        async with httpx.AsyncClient() as http:
            text = (await http.get(f"{people.platform.status['endpoints'][f'{row.name}_ops']}/metrics")).text
        of_service = there.setdefault(row.name, {})
        for name, labels in _SERIES.findall(text):
            of_service.setdefault(name, []).append(dict(_PAIR.findall(labels)))
    expressions = [(dashboard.uid, query.promql) for dashboard in dashboards() for query in dashboard.queries]
    expressions += [(alert.name, alert.promql()) for alert in ALERTS]
    recorded = {found.name for found in objectives.recorded()}
    expressions += [(found.name, found.promql) for found in objectives.recorded()]
    faults: list[tuple[str, ...]] = []
    for where, promql in expressions:
        labels = set(_ADDED)
        for name, matchers in _NAMED.findall(promql):
            if name in _LABELS or name in _FIRST_WHEN_IT_FAILS:
                continue
            asked = _MATCHER.findall(matchers)
            service = next((value for label, _, value in asked if label == "service"), None)
            told = [series for of, all_of in there.items() if service in (None, of) for series in all_of.get(name, ())]
            if not told:
                faults.append((where, name))
            labels |= {label for series in told for label in series}
            for label, how, value in asked:
                if label == "service" or how == "!=":
                    continue
                known = {series.get(label, "") for series in told} | _VALUES_WHEN_IT_FAILS.get(label, set())
                wanted = value.replace("\\\\", "\\")
                if not any(re.fullmatch(wanted, value) for value in known):
                    faults.append((where, name, label, value))
        kept = {label for clause in _BY.findall(promql) for label in clause.split(", ")}
        if not kept <= labels:
            faults.append((where, promql))
        faults += [(where, name) for name in re.findall(r"\bclass:[a-z]+:\w+", promql) if name not in recorded]
    assert faults == []


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
