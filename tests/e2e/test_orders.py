from __future__ import annotations

import asyncio
import random
import uuid
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from contract_runtime.http_client import Answer, ApiError
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient

from conftest import People, new_key, order_of

APPROVED = models.PaymentRequest(payment_token="tok_approved")
SHIPMENT = models.ShipmentRequest(carrier="DHL", tracking_number="JD0146")


async def refused(awaitable: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value


async def available(people: People, product: models.Product) -> int:
    return (await BackendClient(people.http).get_product(product.id)).data.available


async def paid_order(people: People, client: BackendClient, product: models.Product) -> models.Order:
    order = await people.order(client, (product, 1))
    return (await client.pay_order(order.id, APPROVED, idempotency_key=new_key())).data


async def test_a_customer_orders_and_pays_and_support_ships_and_delivers(people: People) -> None:
    client, _ = await people.newcomer()
    support = await people.role("support")
    product = await people.product(stock=10, price=1250)
    placed = await client.create_order(order_of((product, 3)), idempotency_key=new_key())
    order = placed.data
    assert placed.status == 201
    assert placed.headers["location"] == f"/v1/orders/{order.id}"
    assert placed.headers["etag"] == '"1"'
    assert order.status == "pending_payment"
    assert order.total == models.Money(amount_minor=3750, currency="EUR")
    assert order.items[0].line_total.amount_minor == 3750
    assert uuid.UUID(order.id).version == 7
    assert await available(people, product) == 7
    paid = await client.pay_order(order.id, APPROVED, idempotency_key=new_key(), if_match='"1"')
    assert (paid.data.status, paid.headers["etag"]) == ("paid", '"2"')
    assert (await client.get_order(order.id)).data == paid.data
    shipped = await support.ship_order(order.id, SHIPMENT)
    assert shipped.data.status == "shipped"
    assert (await client.get_order(order.id)).data.status == "shipped"
    delivered = await support.deliver_order(order.id)
    assert (delivered.data.status, delivered.data.version) == ("delivered", 4)
    history = (await support.get_order_history(order.id)).data.items
    assert [(t.from_status, t.to_status) for t in history] == [
        (None, "pending_payment"),
        ("pending_payment", "paid"),
        ("paid", "shipped"),
        ("shipped", "delivered"),
    ]
    me, helper = (await client.get_me()).data.id, (await support.get_me()).data.id
    assert [t.actor_id for t in history] == [me, me, helper, helper]
    assert history[2].reason == "DHL JD0146"


async def test_a_refund_gives_the_stock_back(people: People) -> None:
    client, _ = await people.newcomer()
    support = await people.role("support")
    product = await people.product(stock=5)
    order = await paid_order(people, client, product)
    assert await available(people, product) == 4
    refunded = await support.refund_order(order.id, models.RefundRequest(reason="broken"), idempotency_key=new_key())
    assert refunded.data.status == "refunded"
    assert await available(people, product) == 5


@pytest.mark.parametrize(
    ("delivered", "restock", "back"), [(False, None, 0), (True, None, 0), (True, True, 1), (False, True, 1)]
)
async def test_what_was_shipped_is_refunded_and_goes_back_into_stock_only_when_told(
    people: People, delivered: bool, restock: bool | None, back: int
) -> None:
    client, _ = await people.newcomer()
    support = await people.role("support")
    product = await people.product(stock=5)
    order = await paid_order(people, client, product)
    await support.ship_order(order.id, SHIPMENT)
    if delivered:
        await support.deliver_order(order.id)
    body = (
        models.RefundRequest(reason="lost") if restock is None else models.RefundRequest(reason="lost", restock=restock)
    )
    key = new_key()
    refunded = await support.refund_order(order.id, body, idempotency_key=key)
    assert (refunded.status, refunded.data.status) == (200, "refunded")
    assert await available(people, product) == 4 + back
    again = await support.refund_order(order.id, body, idempotency_key=key)
    assert (again.status, again.data, again.headers["idempotency-replayed"]) == (200, refunded.data, "true")
    refund = (await support.get_refund(order.id)).data
    assert (refund.status, refund.restock, refund.attempts) == ("succeeded", bool(restock), 1)
    assert (await client.get_my_overview()).data.spent == []


async def test_a_refund_that_the_provider_does_not_make_is_under_way_until_it_does(people: People) -> None:
    client, _ = await people.newcomer()
    support = await people.role("support")
    order = await people.order(client, (await people.product(), 1))
    token = models.PaymentRequest(payment_token="tok_refund_error")
    await client.pay_order(order.id, token, idempotency_key=new_key())
    key = new_key()
    body = models.RefundRequest(reason="no")
    accepted = await support.refund_order(order.id, body, idempotency_key=key)
    assert (accepted.status, accepted.data.status) == (202, "refunding")
    assert (await client.get_order(order.id)).data.status == "refunding"
    assert [o.id for o in (await support.list_all_orders(status="refunding")).data.items].count(order.id) == 1
    refund = (await support.get_refund(order.id)).data
    assert (refund.status, refund.attempts, bool(refund.last_error)) == ("pending", 1, True)
    for call in (
        support.ship_order(order.id, SHIPMENT),
        support.refund_order(order.id, body, idempotency_key=new_key()),
        client.cancel_order(order.id, models.CancellationRequest(reason="no")),
    ):
        error = await refused(call)
        assert (error.status, error.problem and error.problem.type) == (409, "urn:backend:problem:illegal-transition")
    database = await people.platform.database("orderdb")
    await database.execute("UPDATE refunds SET next_attempt_at = now() WHERE order_id = $1", uuid.UUID(order.id))
    await database.close()
    async with asyncio.timeout(10):
        while (await client.get_order(order.id)).data.status != "refunded":
            await asyncio.sleep(0.1)
    answer = await support.refund_order(order.id, body, idempotency_key=key)
    assert (answer.status, answer.data.status) == (200, "refunded")
    history = (await support.get_order_history(order.id)).data.items
    assert [t.to_status for t in history] == ["pending_payment", "paid", "refunding", "refunded"]


async def test_a_refund_that_the_provider_refuses_is_seen_and_asked_for_again(people: People) -> None:
    client, _ = await people.newcomer()
    support = await people.role("support")
    order = await people.order(client, (await people.product(), 1))
    token = models.PaymentRequest(payment_token="tok_refund_refused")
    await client.pay_order(order.id, token, idempotency_key=new_key())
    body, key = models.RefundRequest(reason="no"), new_key()
    assert (await support.refund_order(order.id, body, idempotency_key=key)).status == 202
    refund = (await support.get_refund(order.id)).data
    assert (refund.status, isinstance(refund.next_attempt_at, datetime)) == ("refused", True)
    database = await people.platform.database("orderdb")
    charge = await database.fetchrow(
        "SELECT approved, refunded FROM payment_sandbox_charges WHERE reference = $1::text::uuid",
        refund.payment_reference,
    )
    await database.close()
    # What the provider says when support asks it with what it was told.
    assert charge is not None
    assert (charge["approved"], charge["refunded"]) == (True, False)
    assert (await support.refund_order(order.id, body, idempotency_key=key)).data.status == "refunding"


async def test_a_cancellation_gives_the_stock_back(people: People) -> None:
    client, _ = await people.newcomer()
    product = await people.product(stock=5)
    order = await people.order(client, (product, 5))
    assert await available(people, product) == 0
    cancelled = await client.cancel_order(order.id, models.CancellationRequest(reason="no"), if_match='"1"')
    assert cancelled.data.status == "cancelled"
    assert await available(people, product) == 5


async def test_support_cancels_any_order_and_a_stranger_none(people: People) -> None:
    client, _ = await people.newcomer()
    stranger, _ = await people.newcomer()
    product = await people.product()
    order = await people.order(client, (product, 1))
    reason = models.CancellationRequest(reason="no")
    assert (await refused(stranger.cancel_order(order.id, reason))).status == 404
    assert (await (await people.role("support")).cancel_order(order.id, reason)).data.status == "cancelled"


async def test_an_unpaid_order_expires_and_gives_its_stock_back(people: People) -> None:
    client, _ = await people.newcomer()
    product = await people.product(stock=5)
    orders = [await people.order(client, (product, 1)) for _ in range(3)]
    database = await people.platform.database("orderdb")
    ids = [uuid.UUID(order.id) for order in orders]
    await database.execute("UPDATE orders SET expires_at = now() WHERE id = ANY($1::uuid[])", ids)
    await database.close()
    async with asyncio.timeout(10):
        while {(await client.get_order(order.id)).data.status for order in orders} != {"expired"}:
            await asyncio.sleep(0.1)
    assert await available(people, product) == 5
    history = (await (await people.role("support")).get_order_history(orders[0].id)).data.items
    assert (history[-1].to_status, history[-1].actor_id) == ("expired", None)
    assert (await refused(client.pay_order(orders[0].id, APPROVED, idempotency_key=new_key()))).status == 409


async def test_out_of_stock_names_the_lines_and_takes_nothing(people: People) -> None:
    client, _ = await people.newcomer()
    scarce, plenty = await people.product(stock=1), await people.product(stock=10)
    error = await refused(client.create_order(order_of((plenty, 1), (scarce, 2)), idempotency_key=new_key()))
    assert error.status == 409
    assert error.problem is not None
    assert error.problem.type == "urn:backend:problem:out-of-stock"
    assert error.problem.facts == {scarce.id: "1"}
    assert await available(people, plenty) == 10


async def test_two_lines_of_one_product_are_counted_together(people: People) -> None:
    client, _ = await people.newcomer()
    product = await people.product(stock=3)
    error = await refused(client.create_order(order_of((product, 2), (product, 2)), idempotency_key=new_key()))
    assert error.status == 409
    order = (await client.create_order(order_of((product, 1), (product, 2)), idempotency_key=new_key())).data
    assert [item.quantity for item in order.items] == [3]


async def test_an_unknown_product_and_mixed_currencies_are_invalid(people: People) -> None:
    client, _ = await people.newcomer()
    euro, dollar = await people.product(), await people.product(currency="USD")
    ghost = models.CreateOrderRequest(items=[models.OrderLine(product_id=str(uuid.uuid4()), quantity=1)])
    error = await refused(client.create_order(ghost, idempotency_key=new_key()))
    assert (error.status, error.problem and error.problem.type) == (422, "urn:backend:problem:unknown-product")
    error = await refused(client.create_order(order_of((euro, 1), (dollar, 1)), idempotency_key=new_key()))
    assert (error.status, error.problem and error.problem.type) == (422, "urn:backend:problem:mixed-currencies")


class TestIdempotency:
    async def test_the_same_key_and_body_answer_the_same_order(self, people: People) -> None:
        client, _ = await people.newcomer()
        product, key = await people.product(stock=10), new_key()
        first = await client.create_order(order_of((product, 1)), idempotency_key=key)
        again = await client.create_order(order_of((product, 1)), idempotency_key=key)
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.status, again.data) == (201, first.data)
        assert await available(people, product) == 9

    async def test_also_after_valkey_has_forgotten_it(self, people: People) -> None:
        client, _ = await people.newcomer()
        product, key = await people.product(stock=10), new_key()
        first = await client.create_order(order_of((product, 1)), idempotency_key=key)
        async with people.platform.valkey(server="valkey-cache") as valkey:
            async for name in valkey.scan_iter("order:*", count=1000):
                await valkey.delete(name)
        again = await client.create_order(order_of((product, 1)), idempotency_key=key)
        assert (again.headers["idempotency-replayed"], again.data) == ("true", first.data)
        assert await available(people, product) == 9

    async def test_another_body_under_the_key_is_refused(self, people: People) -> None:
        client, _ = await people.newcomer()
        product, key = await people.product(), new_key()
        order = (await client.create_order(order_of((product, 1)), idempotency_key=key)).data
        error = await refused(client.create_order(order_of((product, 2)), idempotency_key=key))
        assert (error.status, error.problem and error.problem.type) == (
            422,
            "urn:backend:problem:idempotency-key-reused",
        )
        error = await refused(client.pay_order(order.id, APPROVED, idempotency_key=key))
        assert error.status == 422

    async def test_fifty_simultaneous_posts_of_one_key_make_one_order(self, people: People) -> None:
        client, _ = await people.newcomer()
        product, key = await people.product(stock=100), new_key()
        answers = await asyncio.gather(
            *(client.create_order(order_of((product, 1)), idempotency_key=key) for _ in range(50)),
            return_exceptions=True,
        )
        made = {answer.data.id for answer in answers if isinstance(answer, Answer)}
        errors = [answer for answer in answers if isinstance(answer, ApiError)]
        assert len(made) == 1
        assert {error.status for error in errors} <= {409}
        assert all("retry-after" in error.headers for error in errors)
        assert await available(people, product) == 99
        assert len((await client.list_orders()).data.items) == 1

    async def test_keys_of_different_people_do_not_meet(self, people: People) -> None:
        product, key = await people.product(), new_key()
        ids = set()
        for _ in range(2):
            client, _ = await people.newcomer()
            ids.add((await client.create_order(order_of((product, 1)), idempotency_key=key)).data.id)
        assert len(ids) == 2

    async def test_a_failed_first_try_does_not_burn_the_key(self, people: People) -> None:
        client, _ = await people.newcomer()
        product, key = await people.product(stock=0), new_key()
        assert (await refused(client.create_order(order_of((product, 1)), idempotency_key=key))).status == 409
        admin = await people.role("admin")
        await admin.adjust_stock(
            product.id, models.StockAdjustment(delta=1, reason="delivery"), idempotency_key=new_key()
        )
        assert (await client.create_order(order_of((product, 1)), idempotency_key=key)).status == 201

    @pytest.mark.parametrize("key", ["short", "x" * 129, "with space", "ünïcode-key"])
    async def test_a_key_that_breaks_the_contract_is_invalid(self, people: People, key: str) -> None:
        client, _ = await people.newcomer()
        headers = {"authorization": f"Bearer {client.access_token}", "idempotency-key": key.encode().decode("latin-1")}
        body = {"items": [{"product_id": str(uuid.uuid4()), "quantity": 1}]}
        response = await people.http.post(
            "/v1/orders", json=body, headers=[(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
        )
        assert response.status_code == 422
        assert response.json()["errors"][0]["header"] == "Idempotency-Key"

    async def test_the_key_is_required(self, people: People) -> None:
        client, _ = await people.newcomer()
        body = {"items": [{"product_id": str(uuid.uuid4()), "quantity": 1}]}
        headers = {"authorization": f"Bearer {client.access_token}"}
        response = await people.http.post("/v1/orders", json=body, headers=headers)
        assert response.status_code == 400
        assert response.json()["type"] == "urn:backend:problem:idempotency-key-required"
        assert response.json()["errors"] == [{"header": "Idempotency-Key", "detail": "is required"}]


class TestStock:
    async def test_two_hundred_simultaneous_orders_of_a_hundred_pieces_sell_exactly_a_hundred(
        self, people: People
    ) -> None:
        client, _ = await people.newcomer()
        product = await people.product(stock=100)

        async def buy(key: str) -> int:
            try:
                return (await client.create_order(order_of((product, 1)), idempotency_key=key)).status
            except ApiError as error:
                if error.status != 503:
                    return error.status
            # A busy machine sheds some; they come again when they are told to, as the same order.
            await asyncio.sleep(1)
            return await buy(key)

        statuses = await asyncio.gather(*(buy(new_key()) for _ in range(200)))
        assert (statuses.count(201), statuses.count(409)) == (100, 100)
        assert await available(people, product) == 0

    async def test_many_lines_in_any_order_never_deadlock(self, people: People) -> None:
        client, _ = await people.newcomer()
        products = [await people.product(stock=1000) for _ in range(8)]

        async def buy(seed: int) -> int:
            shuffled = random.Random(seed).sample(products, len(products))
            lines = [(product, 1) for product in shuffled]
            return (await client.create_order(order_of(*lines), idempotency_key=new_key())).status

        assert set(await asyncio.gather(*(buy(seed) for seed in range(40)))) == {201}
        assert {await available(people, product) for product in products} == {960}

    async def test_an_adjustment_is_recorded_and_never_goes_below_zero(self, people: People) -> None:
        admin = await people.role("admin")
        product = await people.product(stock=3)
        lowered = await admin.adjust_stock(
            product.id, models.StockAdjustment(delta=-2, reason="broken"), idempotency_key=new_key()
        )
        assert lowered.data.available == 1
        error = await refused(
            admin.adjust_stock(product.id, models.StockAdjustment(delta=-2, reason="broken"), idempotency_key=new_key())
        )
        assert (error.status, error.problem and error.problem.type) == (409, "urn:backend:problem:stock-below-zero")
        database = await people.platform.database("orderdb")
        query = "SELECT delta, reason, actor_id FROM stock_changes WHERE product_id = $1 ORDER BY id"
        changes = await database.fetch(query, uuid.UUID(product.id))
        await database.close()
        assert [(c["delta"], c["reason"]) for c in changes] == [(3, "initial stock"), (-2, "broken")]
        assert str(changes[1]["actor_id"]) == (await admin.get_me()).data.id


class TestPayment:
    async def test_declined_leaves_the_order_unpaid_and_is_replayed(self, people: People) -> None:
        client, _ = await people.newcomer()
        order, key = await people.order(client, (await people.product(), 1)), new_key()
        declined = models.PaymentRequest(payment_token="tok_declined")
        error = await refused(client.pay_order(order.id, declined, idempotency_key=key))
        assert (error.status, error.problem and error.problem.type) == (402, "urn:backend:problem:payment-declined")
        again = await refused(client.pay_order(order.id, declined, idempotency_key=key))
        assert (again.status, again.headers["idempotency-replayed"]) == (402, "true")
        assert (await client.get_order(order.id)).data.status == "pending_payment"
        assert (await client.pay_order(order.id, APPROVED, idempotency_key=new_key())).data.status == "paid"

    async def test_a_timeout_answers_504_and_a_retry_with_the_key_finds_the_outcome(self, people: People) -> None:
        client, _ = await people.newcomer()
        order, key = await people.order(client, (await people.product(), 1)), new_key()
        slow = models.PaymentRequest(payment_token="tok_timeout")
        error = await refused(client.pay_order(order.id, slow, idempotency_key=key))
        assert (error.status, error.problem and error.problem.type) == (504, "urn:backend:problem:payment-timeout")
        other = await refused(client.pay_order(order.id, APPROVED, idempotency_key=new_key()))
        assert (other.status, other.problem and other.problem.type) == (409, "urn:backend:problem:payment-in-progress")
        cancel = await refused(client.cancel_order(order.id, models.CancellationRequest(reason="no")))
        assert cancel.status == 409
        found = await client.pay_order(order.id, slow, idempotency_key=key)
        assert (found.status, found.data.status) == (200, "paid")
        replayed = await client.pay_order(order.id, slow, idempotency_key=key)
        assert (replayed.data, replayed.headers["idempotency-replayed"]) == (found.data, "true")

    async def test_a_payment_without_outcome_is_settled_by_the_sweep(self, people: People) -> None:
        client, _ = await people.newcomer()
        order = await people.order(client, (await people.product(), 1))
        slow = models.PaymentRequest(payment_token="tok_timeout")
        assert (await refused(client.pay_order(order.id, slow, idempotency_key=new_key()))).status == 504
        database = await people.platform.database("orderdb")
        older = "UPDATE payments SET created_at = created_at - interval '1 minute' WHERE order_id = $1"
        await database.execute(older, uuid.UUID(order.id))
        await database.close()
        async with asyncio.timeout(10):
            while (await client.get_order(order.id)).data.status != "paid":
                await asyncio.sleep(0.1)

    async def test_a_provider_error_charges_nothing_and_the_key_may_try_again(self, people: People) -> None:
        client, _ = await people.newcomer()
        order, key = await people.order(client, (await people.product(), 1)), new_key()
        broken = models.PaymentRequest(payment_token="tok_error")
        for _ in range(2):
            error = await refused(client.pay_order(order.id, broken, idempotency_key=key))
            assert (error.status, error.problem and error.problem.type) == (
                502,
                "urn:backend:problem:payment-provider-error",
            )
        assert (await client.pay_order(order.id, APPROVED, idempotency_key=new_key())).data.status == "paid"

    async def test_simultaneous_payments_of_one_order_charge_once(self, people: People) -> None:
        client, _ = await people.newcomer()
        order = await people.order(client, (await people.product(), 1))
        answers = await asyncio.gather(
            *(client.pay_order(order.id, APPROVED, idempotency_key=new_key()) for _ in range(10)),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, Answer) for answer in answers) == 1
        assert {answer.status for answer in answers if isinstance(answer, ApiError)} == {409}
        database = await people.platform.database("orderdb")
        approved = "SELECT count(*) FROM payments WHERE order_id = $1 AND status = 'approved'"
        assert await database.fetchval(approved, uuid.UUID(order.id)) == 1
        await database.close()

    async def test_nobody_pays_somebody_elses_order(self, people: People) -> None:
        client, _ = await people.newcomer()
        stranger, _ = await people.newcomer()
        order = await people.order(client, (await people.product(), 1))
        assert (await refused(stranger.pay_order(order.id, APPROVED, idempotency_key=new_key()))).status == 404


async def test_another_users_order_is_not_found_except_to_support(people: People) -> None:
    client, _ = await people.newcomer()
    stranger, _ = await people.newcomer()
    order = await people.order(client, (await people.product(), 1))
    # Twice: from the database, then from the cache.
    for _ in range(2):
        assert (await refused(stranger.get_order(order.id))).status == 404
        assert (await (await people.role("support")).get_order(order.id)).data == order
    assert (await client.get_order(order.id)).data == order


async def test_a_stale_if_match_changes_nothing(people: People) -> None:
    client, _ = await people.newcomer()
    support = await people.role("support")
    order = await paid_order(people, client, await people.product())
    for call in (
        client.pay_order(order.id, APPROVED, idempotency_key=new_key(), if_match='"1"'),
        client.cancel_order(order.id, models.CancellationRequest(reason="no"), if_match='"1"'),
        support.ship_order(order.id, SHIPMENT, if_match='"1"'),
        support.deliver_order(order.id, if_match='"1"'),
        support.refund_order(order.id, models.RefundRequest(reason="no"), idempotency_key=new_key(), if_match='"1"'),
    ):
        assert (await refused(call)).status == 412
    assert (await client.get_order(order.id)).data == order
    assert (await support.ship_order(order.id, SHIPMENT, if_match="*")).status == 200


async def test_a_repetition_under_its_key_is_one_whatever_versions_it_allows(people: People) -> None:
    """Of several versions each is tried by itself: the one that matched is found again."""
    client, _ = await people.newcomer()
    support = await people.role("support")
    order = await people.order(client, (await people.product(), 1))
    key = new_key()
    first = await client.pay_order(order.id, APPROVED, idempotency_key=key, if_match='"7", "1"')
    again = await client.pay_order(order.id, APPROVED, idempotency_key=key, if_match='"7", "1"')
    assert (again.status, again.data, again.headers["idempotency-replayed"]) == (200, first.data, "true")
    refund = models.RefundRequest(reason="no")
    key = new_key()
    first = await support.refund_order(order.id, refund, idempotency_key=key, if_match='"9", "2"')
    again = await support.refund_order(order.id, refund, idempotency_key=key, if_match='"9", "2"')
    assert (again.status, again.data, again.headers["idempotency-replayed"]) == (200, first.data, "true")


async def test_the_state_machine_refuses_everything_else(people: People) -> None:
    client, _ = await people.newcomer()
    support = await people.role("support")
    product = await people.product()
    pending = await people.order(client, (product, 1))
    paid = await paid_order(people, client, product)
    shipped = await paid_order(people, client, product)
    await support.ship_order(shipped.id, SHIPMENT)
    cancelled = await people.order(client, (product, 1))
    reason, refund = models.CancellationRequest(reason="no"), models.RefundRequest(reason="no")
    await client.cancel_order(cancelled.id, reason)
    illegal = [
        support.ship_order(pending.id, SHIPMENT),
        support.deliver_order(pending.id),
        support.refund_order(pending.id, refund, idempotency_key=new_key()),
        client.cancel_order(paid.id, reason),
        support.deliver_order(paid.id),
        client.pay_order(paid.id, APPROVED, idempotency_key=new_key()),
        support.ship_order(shipped.id, SHIPMENT),
        client.pay_order(cancelled.id, APPROVED, idempotency_key=new_key()),
        client.cancel_order(cancelled.id, reason),
    ]
    for call in illegal:
        error = await refused(call)
        assert (error.status, error.problem and error.problem.type) == (409, "urn:backend:problem:illegal-transition")


async def test_an_unchanged_order_is_not_sent_again(people: People) -> None:
    client, _ = await people.newcomer()
    order = await people.order(client, (await people.product(), 1))
    headers = {"authorization": f"Bearer {client.access_token}"}
    response = await people.http.get(f"/v1/orders/{order.id}", headers={**headers, "if-none-match": 'W/"7", "1"'})
    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", '"1"')
    response = await people.http.get(f"/v1/orders/{order.id}", headers={**headers, "if-none-match": '"2"'})
    assert response.status_code == 200


async def test_lists_page_newest_first_without_gaps_and_filter(people: People) -> None:
    client, _ = await people.newcomer()
    product = await people.product()
    started = datetime.now(UTC) - timedelta(seconds=1)
    placed = [await people.order(client, (product, 1)) for _ in range(5)]
    await client.pay_order(placed[0].id, APPROVED, idempotency_key=new_key())
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = (await client.list_orders(limit=2, cursor=cursor)).data
        seen += [order.id for order in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == [order.id for order in reversed(placed)]
    assert all(newer > older for newer, older in pairwise(seen))
    assert [o.id for o in (await client.list_orders(status="paid")).data.items] == [placed[0].id]
    assert len((await client.list_orders(created_from=started)).data.items) == 5
    assert (await client.list_orders(created_before=started)).data.items == []
    support, me = await people.role("support"), (await client.get_me()).data.id
    assert [o.id for o in (await support.list_all_orders(user_id=me)).data.items] == seen


async def test_a_cursor_is_bound_to_its_list_and_its_filters(people: People) -> None:
    client, _ = await people.newcomer()
    stranger, _ = await people.newcomer()
    product = await people.product()
    for _ in range(2):
        await people.order(client, (product, 1))
    cursor = (await client.list_orders(limit=1)).data.next_cursor
    assert cursor is not None
    flipped = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
    for call in (
        client.list_orders(cursor=cursor, status="paid"),
        stranger.list_orders(cursor=cursor),
        client.list_orders(cursor=flipped),
        client.list_orders(cursor="x"),
        client.list_products(cursor=cursor),
    ):
        error = await refused(call)
        assert (error.status, error.problem and error.problem.type) == (422, "urn:backend:problem:invalid-cursor")


async def test_the_overview_has_profile_orders_and_spend_and_a_compact_shape(people: People) -> None:
    client, login = await people.newcomer()
    product = await people.product(price=500)
    for _ in range(6):
        await paid_order(people, client, product)
    await people.order(client, (product, 1))
    full = (await client.get_my_overview()).data
    assert full.profile.email == login.email
    assert isinstance(full.orders, list)
    assert len(full.orders) == 5
    assert full.orders[0].status == "pending_payment"
    assert full.spent == [models.Spent(amount_minor=3000, currency="EUR", capped=False)]
    assert full.missing == []
    compact = (
        await people.http.get(
            "/v1/me/overview", headers={"authorization": f"Bearer {client.access_token}", "x-client": "mobile"}
        )
    ).json()
    assert compact["profile"].keys() == {"id", "display_name"}
    assert compact["orders"][0].keys() == {"id", "status", "total"}


def problem_of(error: ApiError) -> tuple[int, str]:
    assert error.problem is not None
    return error.status, error.problem.type.removeprefix("urn:backend:problem:")


async def test_an_adjustment_with_one_key_acts_once(people: People) -> None:
    admin = await people.role("admin")
    product, key = await people.product(stock=3), new_key()
    delivery = models.StockAdjustment(delta=25, reason="delivery")
    first = await admin.adjust_stock(product.id, delivery, idempotency_key=key)
    again = await admin.adjust_stock(product.id, delivery, idempotency_key=key)
    assert (first.data.available, again.data, again.headers["etag"]) == (28, first.data, first.headers["etag"])
    assert again.headers["idempotency-replayed"] == "true"
    assert await available(people, product) == 28
    other = models.StockAdjustment(delta=24, reason="delivery")
    assert problem_of(await refused(admin.adjust_stock(product.id, other, idempotency_key=key))) == (
        422,
        "idempotency-key-reused",
    )


async def test_an_order_is_bounded_and_a_sum_of_orders_stays_readable(people: People) -> None:
    client, _ = await people.newcomer()
    dearest = await people.product(stock=10_000, price=1_000_000_000_000)
    error = await refused(client.create_order(order_of((dearest, 1000)), idempotency_key=new_key()))
    assert problem_of(error) == (422, "order-too-large")
    assert error.problem is not None
    assert error.problem.facts == {"maximum": "1000000000000"}
    order = await paid_order(people, client, dearest)
    assert order.total.amount_minor == 1_000_000_000_000
    database = await people.platform.database("orderdb")
    me = uuid.UUID((await client.get_me()).data.id)
    await database.execute(
        "INSERT INTO orders SELECT uuidv7(), $1, 'paid', 'EUR', 1e12::bigint, 2, at, at, at "
        "FROM generate_series(1, 9100), (SELECT now() - interval '1 day' AS at) AS yesterday",
        me,
    )
    overview = (await client.get_my_overview()).data
    await database.execute("DELETE FROM orders WHERE user_id = $1 AND expires_at = created_at", me)
    await database.close()
    assert overview.missing == []
    assert overview.spent == [models.Spent(amount_minor=2**53 - 1, currency="EUR", capped=True)]


async def test_stock_has_an_upper_bound(people: People) -> None:
    admin = await people.role("admin")
    product = await people.product(stock=1)
    database = await people.platform.database("orderdb")
    await database.execute("UPDATE products SET available = 1e12::bigint WHERE id = $1", uuid.UUID(product.id))
    await database.close()
    more = models.StockAdjustment(delta=1, reason="delivery")
    error = await refused(admin.adjust_stock(product.id, more, idempotency_key=new_key()))
    assert problem_of(error) == (409, "stock-too-large")


@pytest.mark.parametrize("currency", ["ABC", "XXX", "XAU", "DEM"])
async def test_a_currency_is_one_of_iso_4217(people: People, currency: str) -> None:
    assert problem_of(await refused(people.product(currency=currency))) == (422, "unknown-currency")
    admin, product = await people.role("admin"), await people.product(currency="JPY")
    price = models.UpdateProductRequest(price=models.Price(amount_minor=1, currency=currency))
    assert problem_of(await refused(admin.update_product(product.id, price))) == (422, "unknown-currency")


async def test_a_sale_is_no_change_of_a_products_description(people: People) -> None:
    client, _ = await people.newcomer()
    admin = await people.role("admin")
    product = await people.product()
    seen = await admin.get_product(product.id)
    await people.order(client, (product, 1))
    # Who has a copy gets the new stock; who changes the name is not in the way of a sale.
    fresh = await people.http.get(f"/v1/products/{product.id}", headers={"if-none-match": seen.headers["etag"]})
    assert (fresh.status_code, fresh.json()["available"]) == (200, product.available - 1)
    same = await people.http.get(f"/v1/products/{product.id}", headers={"if-none-match": fresh.headers["etag"]})
    assert same.status_code == 304
    renamed = models.UpdateProductRequest(name="Another name")
    changed = await admin.update_product(product.id, renamed, if_match=seen.headers["etag"])
    assert (changed.data.name, changed.data.available) == ("Another name", product.available - 1)
    assert (await admin.get_product(product.id)).data == changed.data
    for stale in (seen.headers["etag"], 'W/"1.1"', '"abc"'):
        assert (await refused(admin.update_product(product.id, renamed, if_match=stale))).status == 412


async def test_a_product_is_found_by_its_own_name_in_any_case(people: People) -> None:
    admin = await people.role("admin")
    for text in ("İstanbul ÇAY", "STRASSENkarte", "ΣΊΣΥΦΟΣ", "e\u0301clair"):
        product = await people.product()
        name = f"{text} {uuid.uuid4()}"
        await admin.update_product(product.id, models.UpdateProductRequest(name=name))
        for spelling in (name, name.lower(), name.upper(), name.replace("SS", "ß")):
            assert [p.id for p in (await admin.list_products(q=spelling)).data.items] == [product.id], spelling


async def test_newest_first_goes_by_the_time_that_is_shown(people: People) -> None:
    client, _ = await people.newcomer()
    product = await people.product()
    placed = [await people.order(client, (product, 1)) for _ in range(4)]
    database = await people.platform.database("orderdb")
    # Made first, recorded last: as an order is that had to wait for a lock.
    move = "UPDATE orders SET created_at = created_at + interval '1 hour' WHERE id = $1"
    await database.execute(move, uuid.UUID(placed[0].id))
    same = "UPDATE orders SET created_at = (SELECT created_at FROM orders WHERE id = $1) WHERE id = $2"
    await database.execute(same, uuid.UUID(placed[2].id), uuid.UUID(placed[1].id))
    await database.close()
    seen, cursor = [], None
    while True:
        page = (await client.list_orders(limit=1, cursor=cursor)).data
        seen += page.items
        if (cursor := page.next_cursor) is None:
            break
    assert [o.id for o in seen] == [placed[i].id for i in (0, 3, 2, 1)]
    assert all(newer.created_at >= older.created_at for newer, older in pairwise(seen))
