"""What people do is followed by mails: each once, to the right address, and none that they do not want."""

from __future__ import annotations

import asyncio
import json
import secrets
from uuid import UUID

import brokers
import mailing
from chassis.events import envelope, subjects
from chassis.events.event import Event
from chassis.events.nats import Nats
from contracts.bff.v1 import models

from conftest import People, Platform, backend, new_key, order_of

WELCOME, PLACED, SHIPPED, DELIVERED, REFUNDED = (
    "Welcome", "We have your order", "Your order is on its way", "Your order has arrived",
    "Your money is on its way back",
)  # fmt: skip


async def states(platform: Platform, user_id: str) -> dict[str, str]:
    """What has become of the mails to somebody, by their kind."""
    inside = await platform.database("notificationdb")
    try:
        rows = await inside.fetch("SELECT kind, state FROM mails WHERE user_id = $1", UUID(user_id))
    finally:
        await inside.close()
    assert len({row["kind"] for row in rows}) == len(rows)
    return {row["kind"]: row["state"] for row in rows}


async def until(platform: Platform, user_id: str, kind: str, state: str) -> None:
    async with asyncio.timeout(60):
        while (await states(platform, user_id)).get(kind) != state:
            await asyncio.sleep(0.1)


async def test_from_registration_to_refund_each_step_is_one_mail(people: People, platform: Platform) -> None:
    customer, email = await mailing.newcomer(people, name="Ada <b>Lovelace</b>")
    support, product = await people.role("support"), await people.product(price=123450)
    order = (await customer.create_order(order_of((product, 2)), idempotency_key=new_key())).data
    await customer.pay_order(order.id, models.PaymentRequest(payment_token="tok_approved"), idempotency_key=new_key())
    shipment = models.ShipmentRequest(carrier="DHL", tracking_number="JD014600003812345678")
    await support.ship_order(order.id, shipment)
    await support.deliver_order(order.id)
    await support.refund_order(
        order.id, models.RefundRequest(reason="broken", restock=False), idempotency_key=new_key()
    )
    found = await mailing.arrived(platform, email, lambda mails: len(mails) >= 5)
    by_subject = {mail.subject: mail for mail in found}
    assert by_subject.keys() == {WELCOME, PLACED, SHIPPED, DELIVERED, REFUNDED}
    assert [len(mail.received) for mail in found] == [1] * 5
    for mail in found:
        assert mail.text.startswith("Hello Ada <b>Lovelace</b>,\n")
        assert "Hello Ada &lt;b&gt;Lovelace&lt;/b&gt;," in mail.html
    for subject in (PLACED, SHIPPED, DELIVERED, REFUNDED):
        assert order.id in by_subject[subject].text
        assert "2,469.00 EUR" in by_subject[subject].html
    assert "JD014600003812345678" in by_subject[SHIPPED].text
    me = (await customer.get_me()).data
    assert set((await states(platform, me.id)).values()) == {"sent"}


async def test_an_event_that_is_told_again_is_the_same_mail(people: People, platform: Platform) -> None:
    customer, email = await mailing.newcomer(people)
    order = await people.order(customer, (await people.product(), 1))
    both = await mailing.arrived(platform, email, lambda mails: len(mails) >= 2)
    placed = next(mail for mail in both if mail.subject == PLACED)
    inside = await platform.database("orderdb")
    row = await inside.fetchrow(
        "SELECT * FROM outbox WHERE subject = $1 AND type = 'order.v1.OrderPlaced'", f"order/{order.id}"
    )
    await inside.close()
    assert row is not None
    again = Event(
        id=row["id"], source="order", type=row["type"], subject=row["subject"], time=row["time"], dataschema="test",
        traceparent="", data=row["data"],
    )  # fmt: skip
    layout = platform.layout
    broker = Nats(f"tls://127.0.0.1:{layout.port('nats')}", layout.certificates / "order", "order")
    running = asyncio.create_task(broker.run())
    try:
        await brokers.connected(broker)
        # Without the id by which the broker itself would know it: three times more.
        for _ in range(3):
            await broker.store(subjects.of_type(again.type), again.data, envelope.headers(again))
    finally:
        running.cancel()
        await asyncio.wait([running])
    # What comes after has been acted on after.
    support = await people.role("support")
    await customer.pay_order(order.id, models.PaymentRequest(payment_token="tok_approved"), idempotency_key=new_key())
    shipment = models.ShipmentRequest(carrier="DHL", tracking_number="1")
    await support.ship_order(order.id, shipment)
    found = await mailing.arrived(platform, email, lambda mails: len(mails) >= 3)
    assert sorted(mail.subject for mail in found) == sorted([WELCOME, PLACED, SHIPPED])
    assert [mail.received for mail in found if mail.subject == PLACED] == [placed.received]
    assert placed.message_id == f"<{again.id}@backend.local>"


async def test_a_refusal_is_for_good_and_whoever_is_disabled_is_not_written_to(
    people: People, platform: Platform
) -> None:
    customer, email = await mailing.newcomer(people, "refused.example")
    me = (await customer.get_me()).data
    await until(platform, me.id, "welcome", "refused")
    inside = await platform.database("notificationdb")
    row = await inside.fetchrow("SELECT attempts, last_error FROM mails WHERE user_id = $1", UUID(me.id))
    await inside.close()
    assert tuple(row or ()) == (1, "the server answered 550 5.1.1")
    assert mailing.to(platform, email) == []
    order = await people.order(customer, (await people.product(), 1))
    await until(platform, me.id, "order_placed", "refused")
    await customer.pay_order(order.id, models.PaymentRequest(payment_token="tok_approved"), idempotency_key=new_key())
    admin, support = await people.role("admin"), await people.role("support")
    await admin.update_user(me.id, models.UpdateUserRequest(status="disabled"))
    shipment = models.ShipmentRequest(carrier="DHL", tracking_number="1")
    await support.ship_order(order.id, shipment)
    await until(platform, me.id, "order_shipped", "no_recipient")


async def test_nobody_gets_what_they_have_switched_off(people: People, platform: Platform) -> None:
    customer, email = await mailing.newcomer(people)
    support, product = await people.role("support"), await people.product()
    changed = await customer.update_my_notifications(models.UpdateNotificationsRequest(order_delivered=False))
    assert changed.headers["etag"] == '"2"'
    order = (await customer.create_order(order_of((product, 1)), idempotency_key=new_key())).data
    await customer.pay_order(order.id, models.PaymentRequest(payment_token="tok_approved"), idempotency_key=new_key())
    shipment = models.ShipmentRequest(carrier="DHL", tracking_number="1")
    await support.ship_order(order.id, shipment)
    await support.deliver_order(order.id)
    me = (await customer.get_me()).data
    await until(platform, me.id, "order_delivered", "unwanted")
    found = await mailing.arrived(platform, email, lambda mails: len(mails) >= 3)
    assert sorted(mail.subject for mail in found) == sorted([WELCOME, PLACED, SHIPPED])


async def test_a_mail_is_in_the_trace_of_what_has_caused_it(people: People, platform: Platform) -> None:
    customer, _ = await people.newcomer()
    product = await people.product()
    people.http.headers.update(platform.traced)
    placed = await customer.create_order(order_of((product, 1)), idempotency_key=new_key())
    request_id = placed.headers["x-request-id"]
    async with asyncio.timeout(60):
        while True:
            said = await asyncio.to_thread(
                backend, "trace", request_id, "--json", "--data-dir", str(platform.layout.data_dir)
            )
            found = json.loads(said.stdout)
            spans = {span["name"]: span for span in found["spans"]}
            if {"send mail order_placed", "user.v1.ContactService/GetContact"} <= spans.keys():
                break
    mail, noted = spans["send mail order_placed"], spans["process events.order.v1.OrderPlaced"]
    assert (mail["service"], mail["kind"], noted["kind"]) == ("notification", "producer", "consumer")
    assert mail["depth"] > noted["depth"] > spans["order.v1.OrderService/CreateOrder"]["depth"]
    assert "@example.com" not in said.stdout


async def test_neither_address_nor_name_is_in_a_log(people: People, platform: Platform) -> None:
    name = f"Name{secrets.token_hex(8)}"
    for domain in ("example.com", "refused.example", "deferred.example"):
        customer, email = await mailing.newcomer(people, domain, name)
        me = (await customer.get_me()).data
        async with asyncio.timeout(60):
            while (await tries(platform, me.id)) == 0:
                await asyncio.sleep(0.1)
        logs = [file.read_text(encoding="utf-8") for file in platform.layout.logs.glob("*.log")]
        assert logs
        assert not any(email in log or name in log for log in logs)
        # Nobody waits for this one any more.
        await forget(platform, me.id)


async def tries(platform: Platform, user_id: str) -> int:
    """How often a mail to somebody was tried and noted to be so."""
    inside = await platform.database("notificationdb")
    try:
        found = await inside.fetchval(
            "SELECT count(*) FROM mails WHERE user_id = $1 AND (state <> 'waiting' OR last_error <> '')", UUID(user_id)
        )
    finally:
        await inside.close()
    return int(found)


async def forget(platform: Platform, user_id: str) -> None:
    inside = await platform.database("notificationdb")
    await inside.execute("UPDATE mails SET state = 'given_up', ended_at = now() WHERE user_id = $1", UUID(user_id))
    await inside.close()
