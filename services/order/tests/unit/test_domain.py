from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from order.domain.errors import (
    IllegalTransitionError,
    MixedCurrenciesError,
    OrderTooLargeError,
    OutOfStockError,
    StaleVersionError,
    UnknownProductError,
)
from order.domain.money import MAX_MINOR, MAX_SUM_MINOR, Money
from order.domain.order import RELEASES_STOCK, TRANSITIONS, Order, OrderStatus, step
from order.domain.product import Product, demand, reserve
from order.domain.refund import restocks_by_default
from order.handlers import messages

NOW = datetime(2026, 11, 25, tzinfo=UTC)
amounts = st.integers(0, 10**12)
currencies = st.sampled_from(["EUR", "USD", "JPY"])
money = st.builds(Money, amounts, currencies)


class TestMoney:
    @given(amounts, amounts, currencies)
    def test_adds_within_a_currency(self, a: int, b: int, currency: str) -> None:
        assert Money(a, currency) + Money(b, currency) == Money(a + b, currency)
        assert Money(a, currency) + Money(b, currency) == Money(b, currency) + Money(a, currency)

    @given(amounts, amounts)
    def test_never_adds_across_currencies(self, a: int, b: int) -> None:
        with pytest.raises(MixedCurrenciesError):
            Money(a, "EUR") + Money(b, "USD")

    @given(money, st.integers(0, 1000))
    def test_a_multiple_is_a_repeated_sum(self, price: Money, quantity: int) -> None:
        total = Money(0, price.currency)
        for _ in range(quantity):
            total += price
        assert price * quantity == total

    @given(st.integers(max_value=-1))
    def test_is_never_negative(self, amount: int) -> None:
        with pytest.raises(ValueError, match="negative"):
            Money(amount, "EUR")


PRICE = Money(100, "EUR")


def product(available: int, price: Money = PRICE) -> Product:
    return Product(uuid4(), "SKU", "name", price, available, 1, 1, NOW)


class TestReservation:
    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=20))
    def test_takes_exactly_what_is_wanted_or_nothing(self, lines: list[tuple[int, int]]) -> None:
        products = [product(10) for _ in range(6)]
        wanted = demand((products[index].id, quantity) for index, quantity in lines)
        assert sum(wanted.values()) == sum(quantity for _, quantity in lines)
        short = {i for i, quantity in wanted.items() if quantity > 10}
        if short:
            with pytest.raises(OutOfStockError) as caught:
                reserve(wanted, products)
            assert {UUID(i) for i in caught.value.facts} == short
            return
        order_lines, total = reserve(wanted, products)
        assert {line.product_id: line.quantity for line in order_lines} == wanted
        assert total.amount_minor == sum(line.total.amount_minor for line in order_lines)
        assert total.amount_minor == 100 * sum(wanted.values())

    def test_an_unknown_product_is_named(self) -> None:
        ghost = uuid4()
        with pytest.raises(UnknownProductError, match=str(ghost)):
            reserve({ghost: 1}, [])

    def test_currencies_do_not_mix(self) -> None:
        euro, dollar = product(1), product(1, Money(1, "USD"))
        with pytest.raises(MixedCurrenciesError):
            reserve({euro.id: 1, dollar.id: 1}, [euro, dollar])

    def test_an_order_comes_to_so_much_and_no_more(self) -> None:
        half = product(10, Money(MAX_MINOR // 2, "EUR"))
        assert reserve({half.id: 2}, [half])[1] == Money(MAX_MINOR, "EUR")
        with pytest.raises(OrderTooLargeError):
            reserve({half.id: 3}, [half])


@pytest.mark.parametrize(("over", "capped"), [(0, False), (1, True), (10**30, True)])
def test_a_sum_is_shown_as_far_as_json_carries_it(*, over: int, capped: bool) -> None:
    shown = messages.spent(Money(MAX_SUM_MINOR + over, "EUR"))
    assert (shown.amount_minor, shown.capped) == (MAX_SUM_MINOR, capped)


def test_pieces_go_back_by_default_only_when_they_were_never_shipped() -> None:
    assert {s for s in OrderStatus if restocks_by_default(order(s))} == {OrderStatus.PAID}


def order(status: OrderStatus = OrderStatus.PENDING_PAYMENT) -> Order:
    return Order(uuid4(), uuid4(), status, (), Money(1, "EUR"), 1, NOW, NOW, NOW)


class TestStateMachine:
    ALLOWED = frozenset({
        ("pending_payment", "paid"), ("pending_payment", "cancelled"), ("pending_payment", "expired"),
        ("paid", "shipped"), ("paid", "refunding"), ("shipped", "delivered"), ("shipped", "refunding"),
        ("delivered", "refunding"), ("refunding", "refunded"),
    })  # fmt: skip

    @pytest.mark.parametrize("start", OrderStatus)
    @pytest.mark.parametrize("end", OrderStatus)
    def test_is_the_table_of_the_design(self, start: OrderStatus, end: OrderStatus) -> None:
        if (start.value, end.value) in self.ALLOWED:
            changed, transition = step(order(start), end, actor_id=None, reason="x", now=NOW)
            assert (changed.status, changed.version) == (end, 2)
            assert (transition.from_status, transition.to_status, transition.version) == (start, end, 2)
        else:
            with pytest.raises(IllegalTransitionError):
                step(order(start), end, actor_id=None, reason="x", now=NOW)

    def test_a_stale_version_is_refused(self) -> None:
        order().require_version(None)
        order().require_version(1)
        with pytest.raises(StaleVersionError):
            order().require_version(2)


class OrderLife(RuleBasedStateMachine):
    """Any walk through the machine: versions rise by one, time never goes back, stock is released at most once."""

    def __init__(self) -> None:
        super().__init__()
        self.order = order()
        self.steps = 0
        self.released = 0

    @rule(status=st.sampled_from(OrderStatus), minutes=st.integers(0, 100))
    def change(self, status: OrderStatus, minutes: int) -> None:
        before = self.order
        try:
            self.order = before.transition_to(status, before.updated_at + timedelta(minutes=minutes))
        except IllegalTransitionError:
            assert self.order is before
        else:
            self.steps += 1
            self.released += status in RELEASES_STOCK

    @invariant()
    def versions_count_the_changes(self) -> None:
        assert self.order.version == 1 + self.steps

    @invariant()
    def stock_comes_back_at_most_once(self) -> None:
        assert self.released <= 1

    @precondition(lambda self: self.order.status not in TRANSITIONS)
    @rule(status=st.sampled_from(OrderStatus))
    def a_final_status_stays(self, status: OrderStatus) -> None:
        with pytest.raises(IllegalTransitionError):
            self.order.transition_to(status, NOW)


TestOrderLife = OrderLife.TestCase
