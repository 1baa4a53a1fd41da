"""What a client does is told: from the request to the broker."""

from __future__ import annotations

import asyncio

from contracts.bff.v1 import models

from conftest import People, new_key, order_of


async def test_what_an_order_and_its_payment_tell_is_published_in_the_trace_of_their_requests(people: People) -> None:
    customer, _ = await people.newcomer()
    product = await people.product(stock=3)
    traced = people.platform.traced
    people.http.headers.update(traced)
    order = (await customer.create_order(order_of((product, 1)), idempotency_key=new_key())).data
    await customer.pay_order(order.id, models.PaymentRequest(payment_token="tok_approved"), idempotency_key=new_key())
    inside = await people.platform.database("orderdb")
    try:
        query = "SELECT type, traceparent, published_at FROM outbox WHERE subject = $1 ORDER BY position"
        async with asyncio.timeout(20):
            while not all(row["published_at"] for row in await inside.fetch(query, f"order/{order.id}")):
                await asyncio.sleep(0.1)
        rows = await inside.fetch(query, f"order/{order.id}")
    finally:
        await inside.close()
    assert [row["type"] for row in rows] == ["order.v1.OrderPlaced", "order.v1.OrderPaid"]
    (sent,) = traced.values()
    assert {row["traceparent"][:35] for row in rows} == {sent[:35]}
