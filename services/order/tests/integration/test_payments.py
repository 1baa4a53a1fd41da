"""Payments, with providers that answer late, wrongly, twice or not at all."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any, NoReturn

import pytest
from chassis.database import Database
from chassis.ids import uuid7
from order.domain.errors import (
    IllegalTransitionError,
    PaymentDeclinedError,
    PaymentProviderError,
    PaymentTimeoutError,
    RequestInProgressError,
    TooManyDeclinedPaymentsError,
)
from order.domain.money import Money
from order.domain.order import Order, OrderStatus
from order.domain.refund import RefundStatus
from order.gateways.bounded import BoundedGateway
from order.gateways.payment import ChargeOutcome
from order.gateways.payment_sandbox import PaymentSandbox
from order.repository import orders, payments
from order.service.orders import Actor, OrderUseCases, Reader
from order.service.payments import STUCK_BATCH, PaymentUseCases
from order.service.refunds import DUE_BATCH
from order.service.replay import IdempotentRequest
from order_use_cases import Clock, new_product, payments_of, refunds_of
from payment_providers import Broken, Failing, Hanging, Late, Remembering, Scripted, SlowWay

from conftest import Platform


async def test_the_sandbox_charges_a_reference_once_whatever_is_asked_again(database: Database) -> None:
    sandbox, reference = PaymentSandbox(database), uuid7()
    assert await sandbox.charge(reference, Money(1, "EUR"), "tok_declined") is ChargeOutcome.DECLINED
    assert await sandbox.charge(reference, Money(1, "EUR"), "tok_approved") is ChargeOutcome.DECLINED
    assert await sandbox.resolve(reference) is ChargeOutcome.DECLINED


async def test_a_charge_that_was_resolved_before_it_arrived_takes_no_money(database: Database) -> None:
    sandbox, reference = PaymentSandbox(database), uuid7()
    assert await sandbox.resolve(reference) is ChargeOutcome.CLOSED
    assert await sandbox.charge(reference, Money(1, "EUR"), "tok_approved") is ChargeOutcome.CLOSED
    assert await sandbox.resolve(reference) is ChargeOutcome.CLOSED


@pytest.mark.parametrize("token", ["tok_approved", "tok_declined"])
async def test_an_outcome_that_somebody_else_recorded_is_answered_from_the_key(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]], token: str
) -> None:
    clock, (one, _) = replicas
    gateway = SlowWay(PaymentSandbox(database))
    paying = PaymentUseCases(
        database=database,
        transitions=one._transitions,
        replays=one._replays,
        gateway=gateway,
        now=clock,
        answer_time=timedelta(seconds=1),
        most_declined=0,
    )
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    request = IdempotentRequest(user, "key-payment", b"p" * 32)
    gateway.meanwhile = lambda: paying.settle_stuck(timedelta(seconds=-60))
    if token == "tok_declined":
        for _ in range(2):
            with pytest.raises(PaymentDeclinedError):
                await paying.pay(request, order.id, token, None)
    else:
        paid, _ = await paying.pay(request, order.id, token, None)
        again, replayed = await paying.pay(request, order.id, token, None)
        assert (paid.status, again, replayed) == (OrderStatus.PAID, paid, True)


async def test_a_payment_that_waited_for_the_same_payment_answers_as_it_did(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    """Two requests with one key, a few milliseconds apart: the second waits for the order, which is then paid."""
    clock, (one, two) = replicas
    gateway = SlowWay(PaymentSandbox(database))
    first, second = (
        PaymentUseCases(
            database=database,
            transitions=replica._transitions,
            replays=replica._replays,
            gateway=gateway,
            now=clock,
            answer_time=timedelta(seconds=1),
            most_declined=0,
        )
        for replica in (one, two)
    )
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    request = IdempotentRequest(user, "key-payment", b"p" * 32)
    waiting: list[asyncio.Task[tuple[Order, bool]]] = []

    async def while_the_order_is_locked() -> None:
        waiting.append(asyncio.create_task(second.pay(request, order.id, "tok_approved", None)))
        async with database.connection() as connection:
            while not await connection.fetch("SELECT FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)

    apply = one._transitions.apply

    async def slowly(*args: Any, **options: Any) -> Order:
        changed = await apply(*args, **options)
        await while_the_order_is_locked()
        return changed

    one._transitions.apply = slowly  # type: ignore[method-assign]
    paid, replayed = await first.pay(request, order.id, "tok_approved", None)
    assert (paid.status, replayed) == (OrderStatus.PAID, False)
    assert await waiting[0] == (paid, True)


@pytest.mark.parametrize("arrives", ["before the provider fails", "afterwards"])
async def test_a_charge_that_arrives_late_is_not_forgotten_when_the_provider_fails_meanwhile(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]], arrives: str
) -> None:
    clock, (one, _) = replicas
    gateway = Late(PaymentSandbox(database))
    paying = payments_of(database, one, clock, gateway)
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    request = IdempotentRequest(user, "key-payment", b"p" * 32)
    with pytest.raises(PaymentTimeoutError):
        await paying.pay(request, order.id, "tok_approved", None)
    assert gateway.arrive is not None
    clock.now += timedelta(seconds=2)
    if arrives == "afterwards":
        with pytest.raises(PaymentProviderError):
            await paying.pay(request, order.id, "tok_approved", None)
        await gateway.arrive()
    else:
        await gateway.arrive()
    paid, _ = await paying.pay(request, order.id, "tok_approved", None)
    assert paid.status is OrderStatus.PAID
    async with database.connection() as connection:
        taken = await connection.fetch("SELECT reference FROM payment_sandbox_charges WHERE approved")
        recorded = await connection.fetch("SELECT id FROM payments WHERE status = 'approved'")
    assert [row["reference"] for row in taken] == [row["id"] for row in recorded]
    assert len(taken) == 1


async def test_nobody_is_told_that_nothing_was_charged_unless_the_provider_says_so(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    """The first call has charged and its answer was lost; then the provider fails at everything, then it is back."""
    clock, (one, _) = replicas
    gateway = Scripted(PaymentTimeoutError(), PaymentProviderError(), PaymentProviderError(), ChargeOutcome.APPROVED)
    paying = payments_of(database, one, clock, gateway)
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    request = IdempotentRequest(user, "key-payment", b"p" * 32)
    for _ in range(2):
        with pytest.raises(PaymentTimeoutError):
            await paying.pay(request, order.id, "tok_approved", None)
        clock.now += timedelta(seconds=2)
    assert (await paying.pay(request, order.id, "tok_approved", None))[0].status is OrderStatus.PAID


async def test_a_charge_that_was_closed_by_a_process_that_died_is_not_a_declined_one(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    """The provider failed and has closed the attempt, which nobody lived to record: the key may try again."""
    clock, (one, _) = replicas
    sandbox = PaymentSandbox(database)
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    request = IdempotentRequest(user, "key-payment", b"p" * 32)
    with pytest.raises(PaymentTimeoutError):
        await payments_of(database, one, clock, Scripted(PaymentTimeoutError())).pay(
            request, order.id, "tok_approved", None
        )
    async with database.connection() as connection:
        attempt = await payments.processing(connection, order.id)
    assert attempt is not None
    await sandbox.resolve(attempt.id)
    clock.now += timedelta(seconds=2)
    paying = payments_of(database, one, clock, sandbox)
    with pytest.raises(RequestInProgressError):
        await paying.pay(request, order.id, "tok_approved", None)
    paid, replayed = await paying.pay(request, order.id, "tok_approved", None)
    assert (paid.status, replayed) == (OrderStatus.PAID, False)


@pytest.mark.parametrize(
    ("first", "then", "contradicts"),
    [
        (ChargeOutcome.CLOSED, ChargeOutcome.APPROVED, True),
        (ChargeOutcome.DECLINED, ChargeOutcome.APPROVED, True),
        (ChargeOutcome.APPROVED, ChargeOutcome.DECLINED, True),
        (ChargeOutcome.APPROVED, ChargeOutcome.CLOSED, True),
        (ChargeOutcome.APPROVED, ChargeOutcome.APPROVED, False),
        (ChargeOutcome.CLOSED, ChargeOutcome.DECLINED, False),
    ],
)
async def test_a_provider_that_contradicts_itself_about_money_is_reported(
    database: Database,
    replicas: tuple[Clock, list[OrderUseCases]],
    logged: list[Any],
    first: ChargeOutcome,
    then: ChargeOutcome,
    *,
    contradicts: bool,
) -> None:
    """The sweep has an answer while the payment waits for its own, which is another one. The first stays."""
    clock, (one, _) = replicas
    sweep = payments_of(database, one, clock, Scripted(first))
    gateway = SlowWay(Scripted(then))
    gateway.meanwhile = lambda: sweep.settle_stuck(timedelta(seconds=-60))
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    request = IdempotentRequest(user, "key-payment", b"p" * 32)
    paying = payments_of(database, one, clock, gateway).pay(request, order.id, "tok_approved", None)
    match first:
        case ChargeOutcome.APPROVED:
            assert (await paying)[0].status is OrderStatus.PAID
        case ChargeOutcome.DECLINED:
            with pytest.raises(PaymentDeclinedError):
                await paying
        case ChargeOutcome.CLOSED:
            with pytest.raises(RequestInProgressError):
                await paying
    errors = [entry for entry in logged if entry["log_level"] == "error"]
    assert [entry["event"] for entry in errors] == ["payment provider contradicts itself"] * contradicts
    found = await one.get(order.id, Reader(str(user)))
    assert found.status is (OrderStatus.PAID if first is ChargeOutcome.APPROVED else OrderStatus.PENDING_PAYMENT)


async def test_payments_that_are_never_answered_take_their_turns_with_others(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    """A batch of them takes longer than they are put off for: who has never been asked about comes first."""
    clock, (one, _) = replicas
    asked: list[uuid.UUID] = []

    class Silent(Hanging):
        async def resolve(self, reference: uuid.UUID) -> NoReturn:
            asked.append(reference)
            clock.now += timedelta(seconds=1)
            raise PaymentTimeoutError

    product, begun = await new_product(database, stock=100), []
    for number in range(STUCK_BATCH + 5):
        order, _ = await one.create(IdempotentRequest(uuid7(), f"key-{number:08}", b"h" * 32), [(product.id, 1)])
        attempt = payments.Attempt(uuid7(), order.id, order.user_id, f"pay-{number:08}", "tok_approved", clock.now)
        async with database.transaction() as connection:
            await payments.begin(connection, attempt)
        clock.now += timedelta(milliseconds=1)
        begun.append(attempt.id)
    clock.now += timedelta(minutes=1)
    claim, batches = payments.claim_stuck, 0

    async def twice(*args: Any) -> list[payments.Attempt]:
        nonlocal batches
        batches += 1
        return await claim(*args) if batches <= 2 else []

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(payments, "claim_stuck", twice)
        await payments_of(database, one, clock, Silent()).settle_stuck(timedelta(seconds=30))
    assert set(asked) == set(begun)


async def test_a_provider_that_never_answers_keeps_nobody_waiting(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    clock, (one, _) = replicas
    gateway = BoundedGateway(Hanging(), 0.05)
    paying, refunding = payments_of(database, one, clock, gateway), refunds_of(database, one, clock, gateway)
    calm = payments_of(database, one, clock, PaymentSandbox(database))
    user, product = uuid7(), await new_product(database, stock=2)
    open_one, paid_one = [
        (await one.create(IdempotentRequest(user, f"key-order-{n}", b"o" * 32), [(product.id, 1)]))[0] for n in range(2)
    ]
    with pytest.raises(PaymentTimeoutError):
        await paying.pay(IdempotentRequest(user, "key-payment", b"p" * 32), open_one.id, "tok_approved", None)
    await calm.pay(IdempotentRequest(user, "key-calm", b"p" * 32), paid_one.id, "tok_approved", None)
    refund = IdempotentRequest(user, "key-refund", b"r" * 32)
    assert (await refunding.refund(refund, paid_one.id, "no", None, None))[0].status is OrderStatus.REFUNDING
    clock.now += timedelta(minutes=1)
    assert await paying.settle_stuck(timedelta(seconds=30)) == 0
    assert await refunding.finish_due() == 0
    assert (await one.get(open_one.id, Reader(str(user)))).status is OrderStatus.PENDING_PAYMENT
    async with database.connection() as connection:
        assert (await payments.processing(connection, open_one.id)) is not None


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (ValueError("no JSON"), "the payment provider's answer was not understood"),
        (ConnectionResetError(), "the payment provider's answer was not understood"),
        (PaymentTimeoutError(), "the payment provider did not answer in time"),
        (PaymentProviderError("card\0ended\n" + "x" * 5000), "card ended " + "x" * 389),
    ],
)
async def test_however_a_provider_fails_nobody_is_told_more_than_is_known_and_support_sees_why(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]], failure: Exception, why: str
) -> None:
    clock, (one, _) = replicas
    provider = Failing(PaymentSandbox(database))
    gateway = BoundedGateway(provider, 1)
    paying, refunding = payments_of(database, one, clock, gateway), refunds_of(database, one, clock, gateway)
    user, support, product = uuid7(), uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    payment, refund = IdempotentRequest(user, "key-pay", b"p" * 32), IdempotentRequest(support, "key-refund", b"r" * 32)
    provider.failure = failure
    with pytest.raises(PaymentTimeoutError):
        await paying.pay(payment, order.id, "tok_approved", None)
    clock.now += timedelta(minutes=1)
    assert await paying.settle_stuck(timedelta(seconds=30)) == 0
    provider.failure = None
    assert (await paying.pay(payment, order.id, "tok_approved", None))[0].status is OrderStatus.PAID
    provider.failure = failure
    # Every time the provider is asked counts, whoever makes it: the request, its repetition, the sweep.
    for attempts in (1, 2):
        answer, _ = await refunding.refund(refund, order.id, "no", None, None)
        found = await refunding.get(order.id)
        assert (answer.status, found.status, found.attempts) == (OrderStatus.REFUNDING, RefundStatus.PENDING, attempts)
        assert found.last_error == why
        clock.now += timedelta(seconds=29)
    # Half a minute after the first, but not after its repetition, which the sweep leaves alone for as long.
    assert (await refunding.finish_due(), (await refunding.get(order.id)).attempts) == (0, 2)
    clock.now += timedelta(seconds=2)
    assert (await refunding.finish_due(), (await refunding.get(order.id)).attempts) == (0, 3)
    provider.failure = None
    assert (await refunding.refund(refund, order.id, "no", None, None))[0].status is OrderStatus.REFUNDED
    assert (await refunding.get(order.id)).attempts == 4


async def test_a_payment_begun_by_a_clock_that_was_ahead_is_found_as_soon_as_any_other(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    clock, (one, _) = replicas
    ahead = Clock()
    ahead.now = clock.now + timedelta(minutes=10)
    gateway = BoundedGateway(Hanging(), 0.02)
    user, product = uuid7(), await new_product(database, stock=2)
    begun = []
    for number in range(2):
        order, _ = await one.create(IdempotentRequest(user, f"key-order-{number}", b"o" * 32), [(product.id, 1)])
        wrong = payments_of(database, one, ahead, gateway)
        request = IdempotentRequest(user, f"key-pay-{number}", b"p" * 32)
        with pytest.raises(PaymentTimeoutError):
            await wrong.pay(request, order.id, "tok_approved", None)
        begun.append((order.id, request))
    right = payments_of(database, one, clock, PaymentSandbox(database))
    assert (await right.pay(begun[0][1], begun[0][0], "tok_approved", None))[0].status is OrderStatus.PAID
    assert await right.settle_stuck(timedelta(seconds=30)) == 1
    async with database.connection() as connection:
        assert await payments.processing(connection, begun[1][0]) is None


@pytest.mark.parametrize("key", ["key-pay", "another-key"])
async def test_a_charge_that_a_backup_has_forgotten_is_found_and_not_made_again(
    platform: Platform, database: Database, replicas: tuple[Clock, list[OrderUseCases]], key: str
) -> None:
    clock, (one, _) = replicas
    gateway = Remembering()
    paying = payments_of(database, one, clock, gateway)
    user, product = uuid7(), await new_product(database, stock=1)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    with pytest.raises(PaymentDeclinedError):
        await paying.pay(IdempotentRequest(user, "key-declined", b"d" * 32), order.id, "tok_declined", None)
    paid = IdempotentRequest(user, "key-pay", b"p" * 32)
    await paying.pay(paid, order.id, "tok_approved", None)
    # As it was before the second.
    superuser = await platform.database(database._name)
    await superuser.execute("DELETE FROM payments WHERE status = 'approved'")
    await superuser.execute("UPDATE orders SET status = 'pending_payment'")
    await superuser.execute("DELETE FROM idempotency_keys WHERE key = 'key-pay'")
    await superuser.execute("DELETE FROM order_transitions WHERE to_status = 'paid'")
    await superuser.close()
    async with platform.valkey() as valkey:
        await valkey.delete(paid.cache_key)
    again = payments_of(database, one, clock, gateway)
    assert (await again.pay(IdempotentRequest(user, key, b"p" * 32), order.id, "tok_approved", None))[
        0
    ].status == "paid"
    assert sorted(gateway.charged.values()) == ["approved", "declined"]


async def test_after_its_time_nobody_begins_to_pay_an_order_and_what_has_begun_ends(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    clock, (one, _) = replicas
    user, product = uuid7(), await new_product(database, stock=2)
    orders = [
        (await one.create(IdempotentRequest(user, f"key-order-{n}", b"o" * 32), [(product.id, 1)]))[0] for n in range(2)
    ]
    begun = IdempotentRequest(user, "key-begun", b"p" * 32)
    with pytest.raises(PaymentTimeoutError):
        hanging = payments_of(database, one, clock, BoundedGateway(Hanging(), 0.02))
        await hanging.pay(begun, orders[0].id, "tok_approved", None)
    clock.now += timedelta(minutes=16)
    paying = payments_of(database, one, clock, PaymentSandbox(database))
    with pytest.raises(IllegalTransitionError):
        await paying.pay(IdempotentRequest(user, "key-late", b"p" * 32), orders[1].id, "tok_approved", None)
    assert (await paying.pay(begun, orders[0].id, "tok_approved", None))[0].status is OrderStatus.PAID


@pytest.mark.parametrize("answer", [None, "pending", True])
async def test_an_answer_that_is_no_outcome_is_none(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]], answer: object
) -> None:
    """Nothing is said to have been paid, or given back."""
    clock, (one, _) = replicas
    user, support, product = uuid7(), uuid7(), await new_product(database, stock=2)
    order, _ = await one.create(IdempotentRequest(user, "key-order", b"o" * 32), [(product.id, 1)])
    payment, refund = IdempotentRequest(user, "key-pay", b"p" * 32), IdempotentRequest(support, "key-refund", b"r" * 32)
    vague = BoundedGateway(Scripted(answer), 1)
    with pytest.raises(PaymentTimeoutError):
        await payments_of(database, one, clock, vague).pay(payment, order.id, "tok_approved", None)
    clock.now += timedelta(minutes=1)
    await payments_of(database, one, clock, PaymentSandbox(database)).pay(payment, order.id, "tok_approved", None)
    refunded, _ = await refunds_of(database, one, clock, vague).refund(refund, order.id, "no", None, None)
    assert refunded.status is OrderStatus.REFUNDING


async def test_an_order_whose_payments_are_declined_again_and_again_cannot_be_paid_any_more(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    clock, (one, two) = replicas
    sandbox = PaymentSandbox(database)
    paying, other = (payments_of(database, by, clock, sandbox, most_declined=3) for by in (one, two))
    user, product = uuid7(), await new_product(database, stock=2)
    tried, untried = [
        (await one.create(IdempotentRequest(user, f"key-order-{n}", b"o" * 32), [(product.id, 1)]))[0] for n in range(2)
    ]
    requests = [IdempotentRequest(user, f"key-card-{n}", b"p" * 32) for n in range(4)]
    # What the provider failed at is nobody's fault, and does not count.
    with pytest.raises(PaymentProviderError):
        await paying.pay(requests[3], tried.id, "tok_error", None)
    for request in requests[:3]:
        with pytest.raises(PaymentDeclinedError):
            await paying.pay(request, tried.id, "tok_declined", None)
    for by in (paying, other):
        with pytest.raises(TooManyDeclinedPaymentsError):
            await by.pay(requests[3], tried.id, "tok_approved", None)
    # Who repeats a payment is told what became of it, as ever.
    with pytest.raises(PaymentDeclinedError):
        await other.pay(requests[0], tried.id, "tok_declined", None)
    request = IdempotentRequest(user, "key-untried", b"p" * 32)
    assert (await paying.pay(request, untried.id, "tok_approved", None))[0].status is OrderStatus.PAID
    cancelled = await one.cancel(tried.id, Actor(user), "my card does not work", None)
    assert cancelled.status is OrderStatus.CANCELLED


async def test_payments_and_refunds_that_cannot_be_finished_keep_no_other_from_it(
    database: Database, replicas: tuple[Clock, list[OrderUseCases]]
) -> None:
    clock, (one, _) = replicas
    gateway = Broken(PaymentSandbox(database))
    paying, refunding = payments_of(database, one, clock, gateway), refunds_of(database, one, clock, gateway)
    product, last = await new_product(database, stock=200), None
    count = max(STUCK_BATCH, DUE_BATCH) + 5
    for number in range(count):
        order, _ = await one.create(IdempotentRequest(uuid7(), f"key-{number:08}", b"h" * 32), [(product.id, 1)])
        last = payments.Attempt(uuid7(), order.id, order.user_id, f"pay-{number:08}", "tok_approved", clock.now)
        async with database.transaction() as connection:
            await payments.begin(connection, last)
        await gateway.charge(last.id, order.total, "tok_approved")
        if number < count - 1:
            gateway.poison.add(last.id)
    clock.now += timedelta(minutes=1)
    assert last is not None
    assert await paying.settle_stuck(timedelta(seconds=30)) == 1
    anybody = Reader(str(uuid7()), sees_any=True)
    assert (await one.get(last.order_id, anybody)).status is OrderStatus.PAID
    poison, gateway.poison = gateway.poison, set()
    clock.now += timedelta(minutes=5)
    assert await paying.settle_stuck(timedelta(seconds=30)) == count - 1
    async with database.connection() as connection:
        found, _ = await orders.page(connection, orders.OrderFilter(), None, 100)
        for order in found:
            gateway.poison = {row["id"] for row in await connection.fetch("SELECT id FROM payments")}
            with pytest.raises(ZeroDivisionError):
                await refunding.refund(
                    IdempotentRequest(uuid.UUID(anybody.user_id), f"refund-{order.id}", b"r" * 32),
                    order.id,
                    "no",
                    None,
                    None,
                )
    gateway.poison = poison
    clock.now += timedelta(minutes=1)
    assert await refunding.finish_due() == 1
    assert (await one.get(last.order_id, anybody)).status is OrderStatus.REFUNDED
