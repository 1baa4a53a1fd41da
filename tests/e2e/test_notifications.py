"""GET and PATCH /v1/me/notifications: what people are written, and what of it they switch off."""

from __future__ import annotations

import asyncio

import pytest
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models

from conftest import People

REQUIRED = {"order_placed", "order_shipped", "order_refunded"}
Wanted = models.UpdateNotificationsRequest


async def test_everything_is_sent_until_somebody_switches_it_off_for_themselves(people: People) -> None:
    (customer, _), (other, _) = await people.newcomer(), await people.newcomer()
    found = await customer.get_my_notifications()
    assert {one.kind: (one.enabled, one.required) for one in found.data.items} == {
        **dict.fromkeys(REQUIRED, (True, True)),
        "order_delivered": (True, False),
        "welcome": (True, False),
    }
    assert found.headers["etag"] == '"1"'
    changed = await customer.update_my_notifications(Wanted(order_delivered=False))
    assert {one.kind for one in changed.data.items if not one.enabled} == {"order_delivered"}
    assert (await customer.get_my_notifications()).data == changed.data
    assert (await other.get_my_notifications()).data == found.data
    back = await customer.update_my_notifications(Wanted(order_delivered=True, welcome=False))
    assert ({one.kind for one in back.data.items if not one.enabled}, back.headers["etag"]) == ({"welcome"}, '"3"')


async def test_the_same_change_twice_is_one(people: People) -> None:
    customer, _ = await people.newcomer()
    answers = await asyncio.gather(*(customer.update_my_notifications(Wanted(welcome=False)) for _ in range(5)))
    assert {answer.headers["etag"] for answer in answers} == {'"2"'}
    assert (await customer.update_my_notifications(Wanted(order_delivered=True))).headers["etag"] == '"2"'


async def test_a_condition_is_kept(people: People) -> None:
    customer, _ = await people.newcomer()
    await customer.update_my_notifications(Wanted(welcome=False), if_match='"1"')
    with pytest.raises(ApiError) as stale:
        await customer.update_my_notifications(Wanted(welcome=True), if_match='"1"')
    assert stale.value.status == 412
    headers = {"authorization": f"Bearer {customer.access_token}", "if-none-match": '"2"'}
    assert (await people.http.get("/v1/me/notifications", headers=headers)).status_code == 304


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{}", 422),
        ('{"order_placed": false}', 422),
        ('{"order_placed": true}', 422),
        ('{"nothing": false}', 422),
        ('{"welcome": null}', 422),
        ('{"welcome": "no"}', 422),
        ("[]", 422),
        ("{", 400),
    ],
)
async def test_what_cannot_be_switched_is_refused(people: People, body: str, status: int) -> None:
    customer, _ = await people.newcomer()
    headers = {"authorization": f"Bearer {customer.access_token}", "content-type": "application/json"}
    answer = await people.http.patch("/v1/me/notifications", content=body, headers=headers)
    assert answer.status_code == status
    assert (await customer.get_my_notifications()).headers["etag"] == '"1"'
