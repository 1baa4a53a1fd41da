from __future__ import annotations

from decimal import Decimal

from contracts.bff.v1 import models
from pytest_bdd import parsers, scenarios, then, when
from stories import Story

scenarios("buying.feature")


@when(parsers.parse("{who:w} orders {number:d} {product:w} and {other_number:d} {other_product:w}"))
def orders_two(story: Story, who: str, number: int, product: str, other_number: int, other_product: str) -> None:
    story.place(who, (product, number), (other_product, other_number))


@when(parsers.parse("{who:w} changes the price of {product:w} to {price} EUR"))
def changes_the_price(story: Story, who: str, product: str, price: str) -> None:
    changed = models.UpdateProductRequest(
        price=models.Price(amount_minor=int(Decimal(price) * 100), currency="EUR"),
    )
    story.tries(who, story.clients[who].update_product(story.products[product].id, changed))


@when(parsers.parse("{who:w} looks at the order"))
def looks_at_the_order(story: Story, who: str) -> None:
    story.tries(who, story.clients[who].get_order(story.order.id))


@then(parsers.parse("the order costs {amount} EUR"))
def the_order_costs(story: Story, amount: str) -> None:
    story.require_no_refusal()
    assert story.now().total == models.Money(amount_minor=int(Decimal(amount) * 100), currency="EUR")
