"""One class of operation never hurts another: a reader beside floods of what is slow (`tools/soak.py`, briefly)."""

from __future__ import annotations

import asyncio
from collections import Counter

import inside
import pytest
import soak
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from devstack.options import Options

from conftest import People, Platform, http_client, new_key


def _counter(what: str, operation_class: str) -> str:
    return f'backend_admission_{what}_total{{class="{operation_class}"}}'


@pytest.mark.parametrize(("what", "operation_class", "rate"), [("logins", "login", 200), ("payments", "payment", 100)])
async def test_a_reader_notices_nothing_of_a_flood(
    people: People, stack: Platform, what: str, operation_class: str, rate: float
) -> None:
    product = await people.product(stock=1_000_000)
    bff = stack.status["endpoints"]["bff_ops"]
    before = await inside.metrics(bff, "/metrics")
    reader, flood = await soak.soak(stack.url, product.id, what, rate, seconds=3)
    after = await inside.metrics(bff, "/metrics")
    assert set(reader.statuses) == {200}
    assert reader.statuses[200] >= 20
    # The flood was one, however much of it a busy machine could send, and was told so rightly.
    assert flood.statuses[503] > 10
    assert flood.wrong == []
    refused, served = _counter("refused", operation_class), _counter("admitted", operation_class)
    assert after[refused] - before[refused] > 10
    assert after[served] - before[served] > 20
    for other in ("read", "write", "administration"):
        assert after[_counter("refused", other)] == before[_counter("refused", other)], other


async def test_every_service_has_its_lanes_and_counts_them(stack: Platform) -> None:
    for name in ("bff", "order", "user", "limiter"):
        found = await inside.metrics(stack.status["endpoints"][f"{name}_ops"], "/metrics")
        assert found['backend_admission_slots{class="read"}'] == 64
        assert found[_counter("admitted", "read")] > 0 or name == "user"
        assert found["backend_event_loop_lag_seconds"] < 2


async def test_what_the_bffs_own_envoy_refuses_is_a_problem(stack: Platform) -> None:
    """Here a peer that may not call it; the same form is what a client gets when that Envoy is overloaded."""
    other = inside.identity(stack.layout.certificates / "user")
    with inside.another(stack, "bff", Options(replicas={"order": 2})) as bff:
        answer = await inside.call(bff.port("bff"), "/v1/products", other, method="GET")
    assert (answer.status, answer.headers["content-type"]) == (403, "application/problem+json")


async def test_one_address_holds_no_more_than_half_of_what_is_slow(people: People, stack: Platform) -> None:
    """Payments at a provider that does not answer, more at once than the lane has slots, and somebody else who pays."""
    product = await people.product(stock=1000)
    buyer, _ = await people.newcomer()
    order = await people.order(buyer, (product, 1))
    bff = stack.status["endpoints"]["bff_ops"]
    running = 'backend_admission_running{class="payment"}'
    async with http_client(stack.url) as elsewhere:
        crowd = People(elsewhere, stack)
        slow = models.PaymentRequest(payment_token="tok_timeout")
        payers = [(await crowd.newcomer())[0] for _ in range(2)]
        orders = [(payer, await crowd.order(payer, (product, 1))) for payer in payers for _ in range(20)]
        paying = [
            asyncio.create_task(payer.pay_order(order.id, slow, idempotency_key=new_key())) for payer, order in orders
        ]
        while (await inside.metrics(bff, "/metrics"))[running] < 16:
            await asyncio.sleep(0.01)
        approved = models.PaymentRequest(payment_token="tok_approved")
        assert (await buyer.pay_order(order.id, approved, idempotency_key=new_key())).data.status == "paid"
        assert (await inside.metrics(bff, "/metrics"))[running] <= 16
        outcomes = Counter(
            error.status
            for error in await asyncio.gather(*paying, return_exceptions=True)
            if isinstance(error, ApiError)
        )
    # Those who had a slot learn that the provider has not answered; the others are asked to come again.
    assert set(outcomes) == {503, 504}
    assert outcomes.total() == 40
