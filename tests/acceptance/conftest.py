"""The steps that several features share. Each is a sentence that a reader of the features understands."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
from contracts.bff.v1 import models
from pytest_bdd import parsers, step, then, when
from stories import STATES, Story, story_at

from conftest import Platform, new_key

SHIPMENT = models.ShipmentRequest(carrier="DHL", tracking_number="JD0146")


def minor(amount: str) -> int:
    """Cents."""
    return int(Decimal(amount) * 100)


@pytest.fixture
def story(platform: Platform) -> Iterator[Story]:
    with story_at(platform) as begun:
        yield begun


@step(parsers.parse("{who:w} is a customer"))
def is_a_customer(story: Story, who: str) -> None:
    story.clients[who], story.logins[who] = story.run(story.people.newcomer())


@step(parsers.parse("{who:w} works in support"))
def works_in_support(story: Story, who: str) -> None:
    story.clients[who] = story.run(story.people.role("support"))


@step(parsers.parse("{who:w} is an administrator"))
def is_an_administrator(story: Story, who: str) -> None:
    story.clients[who] = story.run(story.people.role("admin"))


@when(parsers.parse("{who:w} logs in"))
def logs_in(story: Story, who: str) -> None:
    story.log_in(who, story.logins[who])


@then(parsers.parse("{who:w} is not logged in any more"))
def is_not_logged_in_any_more(story: Story, who: str) -> None:
    story.require_no_session(who)


@step(parsers.parse("there are {stock:d} {product:w} at {price} {currency:w} each"))
def there_are(story: Story, stock: int, product: str, price: str, currency: str) -> None:
    story.products[product] = story.run(story.people.product(stock, minor(price), currency))


@step(parsers.parse("{who:w} orders {quantity:d} {product:w}"))
@step(parsers.parse("{who:w} has ordered {quantity:d} {product:w}"))
def orders(story: Story, who: str, quantity: int, product: str) -> None:
    story.place(who, (product, quantity))


@step(parsers.parse("{who:w} pays with {card}"))
@step(parsers.parse("{who:w} has paid with {card}"))
def pays(story: Story, who: str, card: str) -> None:
    story.pay(who, card)


@step(parsers.parse("{who:w} cancels the order"))
@step(parsers.parse("{who:w} has cancelled the order"))
def cancels(story: Story, who: str) -> None:
    story.tries(who, story.clients[who].cancel_order(story.order.id, models.CancellationRequest(reason="not needed")))


@step(parsers.parse("{who:w} ships the order"))
@step(parsers.parse("{who:w} has shipped the order"))
def ships(story: Story, who: str) -> None:
    story.tries(who, story.clients[who].ship_order(story.order.id, SHIPMENT))


@step(parsers.parse("{who:w} notes that it has arrived"))
@step(parsers.parse("{who:w} has noted that it arrived"))
def notes_arrival(story: Story, who: str) -> None:
    story.tries(who, story.clients[who].deliver_order(story.order.id))


@step(parsers.parse("{who:w} refunds the order"))
@step(parsers.parse("{who:w} has refunded the order"))
def refunds(story: Story, who: str) -> None:
    client, body = story.clients[who], models.RefundRequest(reason="broken")
    story.tries(who, client.refund_order(story.order.id, body, idempotency_key=new_key()))


@step(parsers.parse("{who:w} makes the same request again"))
def makes_the_same_request_again(story: Story, who: str) -> None:
    assert story.again is not None
    if (order := story.tries(who, story.again())) is not None:
        story.orders.append(order)


@then(parsers.parse('{who:w} is told "{words}"'))
def is_told(story: Story, who: str, words: str) -> None:
    assert story.told(who) == words


@then(parsers.parse("the order is {state}"))
def the_order_is(story: Story, state: str) -> None:
    story.require_no_refusal()
    assert story.now().status == STATES.get(state, state)


@then(parsers.parse("{number:d} {product:w} are left"))
def are_left(story: Story, number: int, product: str) -> None:
    anybody = next(iter(story.clients.values()))
    assert story.run(anybody.get_product(story.products[product].id)).data.available == number


@then(parsers.parse("{who:w} has {number:d} orders"))
@then(parsers.parse("{who:w} has {number:d} order"))
def has_orders(story: Story, who: str, number: int) -> None:
    assert len(story.run(story.clients[who].list_orders()).data.items) == number


@then(parsers.parse("{who:w} has spent {amount} EUR"))
def has_spent(story: Story, who: str, amount: str) -> None:
    spent = story.run(story.clients[who].get_my_overview()).data.spent
    assert isinstance(spent, list)
    assert sum(one.amount_minor for one in spent if one.currency == "EUR") == minor(amount)
