"""The audit trail as an administrator reads it: of all services in one order, with what the edge knows of the client."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import httpx
import pytest
from chassis.cursors import CursorSigner
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient

from conftest import People, new_key


async def me(client: BackendClient) -> str:
    return f"user/{(await client.get_me()).data.id}"


async def here(client: BackendClient) -> str:
    """Where a client is, as the edge sees it."""
    (own,) = [session.address for session in (await client.list_my_sessions()).data.items if session.current]
    return own


async def turned(
    admin: BackendClient, limit: int, since: datetime, service: Literal["order", "user"] | None = None
) -> list[models.AuditRecord]:
    """All that was recorded since, by pages."""
    found: list[models.AuditRecord] = []
    cursor: str | None = None
    while True:
        page = (await admin.list_audit_records(limit=limit, cursor=cursor, occurred_from=since, service=service)).data
        found += page.items
        if page.next_cursor is None:
            return found
        assert len(page.items) == limit
        cursor = page.next_cursor


async def test_who_changed_this_price(people: People) -> None:
    product = await people.product(price=1990)
    admin = await people.role("admin")
    # What a client says of where it is, nobody believes.
    people.http.headers.update({"x-client-address": "6.6.6.6", "x-forwarded-for": "6.6.6.6"})
    changed = await admin.update_product(
        product.id, models.UpdateProductRequest(price=models.Price(amount_minor=2490, currency="EUR"))
    )
    key = new_key()
    for _ in range(2):
        await admin.adjust_stock(product.id, models.StockAdjustment(delta=-1, reason="broken"), idempotency_key=key)
    page = (await admin.list_audit_records(subject=f"product/{product.id}")).data
    stock, price, created = page.items
    assert page.next_cursor is None
    actor = await me(admin)
    assert [(record.action, record.service, record.actor) for record in page.items] == [
        ("product.stock_changed", "order", actor),
        ("product.price_changed", "order", actor),
        ("product.created", "order", actor),
    ]
    assert (price.before, price.after) == (
        {"amount_minor": 1990, "currency": "EUR"},
        {"amount_minor": 2490, "currency": "EUR"},
    )
    assert (stock.before, stock.after) == ({"available": 100}, {"available": 99, "reason": "broken"})
    assert created.after == {"sku": product.sku, "amount_minor": 1990, "currency": "EUR", "available": 100}
    assert {record.address for record in page.items} == {await here(admin)}
    assert (await here(admin)).startswith("127.")
    assert price.request_id == changed.headers["x-request-id"]
    (only,) = (
        await admin.list_audit_records(subject=f"product/{product.id}", action="product.price_changed")
    ).data.items
    assert only == price


async def test_roles_sessions_and_logins_are_there_with_who_did_it(people: People) -> None:
    customer, login = await people.newcomer()
    admin = await people.role("admin")
    subject, actor, address = await me(customer), await me(admin), await here(admin)
    user_id = subject.removeprefix("user/")
    await customer.logout()
    with pytest.raises(ApiError):
        await customer.login(models.LoginRequest(email=login.email, password="a wrong one"))
    await admin.update_user(user_id, models.UpdateUserRequest(roles=["customer", "support"]))
    await admin.revoke_user_sessions(user_id)
    found = (await admin.list_audit_records(subject=subject)).data.items
    assert [(record.action, record.actor, record.address) for record in found] == [
        ("user.sessions_ended", actor, address),
        ("user.roles_changed", actor, address),
        ("user.session_ended", subject, address),
        ("user.logged_in", subject, address),
        ("user.registered", subject, address),
    ]
    assert found[1].before == {"roles": ["customer"]}
    assert found[1].after == {"roles": ["customer", "support"]}
    # What was tried in vain is a line of the log.
    text = (people.platform.layout.logs / "user.log").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines() if subject in line and '"audit"' in line]
    (failed,) = [line for line in lines if line["action"] == "user.login_failed"]
    assert (failed["event"], failed["address"], failed["after"]["reason"]) == ("audit", address, "wrong_password")
    assert login.password not in str(failed)


async def test_pages_of_all_services_are_one_list_in_order(people: People) -> None:
    since = datetime.now(UTC)
    admin, mine = await people.role("admin"), []
    for _ in range(3):
        customer, _ = await people.newcomer()
        mine += [f"product/{(await people.product()).id}", await me(customer)]
    # Others write meanwhile, and pages end everywhere.
    writing = asyncio.create_task(people.product())
    found = await turned(admin, 2, since)
    await writing
    ids = [record.id for record in found]
    assert ids == sorted(set(ids), reverse=True)
    assert {record.service for record in found} == {"order", "user"}
    of_mine = [(record.action, record.subject) for record in found if record.subject in mine]
    expected = []
    for product, newcomer in zip(mine[::2], mine[1::2], strict=True):
        expected += [("user.registered", newcomer), ("user.logged_in", newcomer), ("product.created", product)]
    assert of_mine == expected[::-1]
    # One service's alone.
    users = await turned(admin, 3, since, "user")
    assert [(r.action, r.subject) for r in users if r.subject in mine] == [
        act for act in expected[::-1] if act[0].startswith("user.")
    ]
    assert {record.service for record in users} == {"user"}
    assert (await admin.list_audit_records(occurred_before=since - timedelta(days=4000))).data.items == []


async def test_a_cursor_is_good_for_its_own_list_only(people: People) -> None:
    admin = await people.role("admin")
    await people.newcomer()
    cursor = (await admin.list_audit_records(limit=1)).data.next_cursor
    assert cursor is not None
    assert (await admin.list_audit_records(limit=1, cursor=cursor)).data.items
    changed = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
    orders = (await admin.list_all_orders(limit=1)).data.next_cursor
    cases: list[dict[str, Any]] = [
        {"cursor": changed},
        {"cursor": "nonsense"},
        {"cursor": cursor, "service": "user"},
        {"cursor": cursor, "action": "user.logged_in"},
        *([{"cursor": orders}] if orders else []),
        # Whoever may read the list may sign what they like.
        {"cursor": CursorSigner("").encode("audit||", ["'; DROP TABLE audit"])},
    ]
    for asked in cases:
        with pytest.raises(ApiError) as refused:
            await admin.list_audit_records(**asked)
        problem = refused.value.problem
        assert problem is not None
        assert problem.type == "urn:backend:problem:invalid-cursor", asked


async def test_only_administrators_read_it(people: People) -> None:
    customer, _ = await people.newcomer()
    for client in (customer, await people.role("support")):
        with pytest.raises(ApiError) as refused:
            await client.list_audit_records()
        assert refused.value.status == 403
    with pytest.raises(ApiError) as refused:
        await BackendClient(people.http).list_audit_records()
    assert refused.value.status == 401


@pytest.mark.parametrize(
    "query",
    [
        "actor=somebody",
        "subject=product",
        "action=everything",
        "service=bff",
        "occurred_from=yesterday",
        "limit=101",
        # Of the calendar in their zone, and not in UTC.
        "occurred_before=9999-12-31T23:59:59-01:00",
        "occurred_from=0001-01-01T00:00:00%2B01:00",
    ],
)
async def test_a_filter_that_is_none_is_refused(people: People, http: httpx.AsyncClient, query: str) -> None:
    admin = await people.role("admin")
    answer = await http.get(f"/v1/admin/audit?{query}", headers={"authorization": f"Bearer {admin.access_token}"})
    assert answer.status_code == 422
    assert answer.json()["errors"]


async def test_a_filter_that_finds_nothing_is_an_empty_page(people: People) -> None:
    admin = await people.role("admin")
    page = (await admin.list_audit_records(subject=f"product/{uuid.uuid4()}")).data
    assert page == models.AuditPage(items=[], next_cursor=None)
