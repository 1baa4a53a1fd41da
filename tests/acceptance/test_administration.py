from __future__ import annotations

from decimal import Decimal

from contracts.bff.v1 import models
from pytest_bdd import given, parsers, scenarios, then, when
from stories import Story

scenarios("administration.feature")


def user_id(story: Story, who: str) -> str:
    """Of a person, as the administrator finds them: their own session may have ended."""
    found = story.run(story.run(story.people.role("admin")).list_users(q=story.logins[who].email)).data.items
    (user,) = found
    return user.id


def change_price(story: Story, who: str, price: str, version: str | None = None) -> None:
    amount = models.Price(amount_minor=int(Decimal(price) * 100), currency="EUR")
    client, product = story.clients[who], story.products["lamps"]
    story.tries(who, client.update_product(product.id, models.UpdateProductRequest(price=amount), if_match=version))


@when(parsers.parse("{who:w} asks for the orders of everybody"))
def asks_for_the_orders_of_everybody(story: Story, who: str) -> None:
    story.tries(who, story.clients[who].list_all_orders(limit=1))


@when(parsers.parse("{who:w} changes the price of lamps to {price} EUR"))
def changes_the_price(story: Story, who: str, price: str) -> None:
    change_price(story, who, price)


@when(parsers.parse("{who:w} disables {other:w}"))
def disables(story: Story, who: str, other: str) -> None:
    story.tries(who, story.clients[who].update_user(user_id(story, other), models.UpdateUserRequest(status="disabled")))


@when(parsers.parse("{who:w} makes {other:w} a member of support"))
def makes_a_member_of_support(story: Story, who: str, other: str) -> None:
    roles = models.UpdateUserRequest(roles=["customer", "support"])
    story.tries(who, story.clients[who].update_user(user_id(story, other), roles))


@given(parsers.parse("{who:w} and {other:w} have both looked at {product:w}"), target_fixture="version")
def have_both_looked_at(story: Story, who: str, other: str, product: str) -> str:
    seen = {
        story.run(story.clients[one].get_product(story.products[product].id)).headers["etag"] for one in (who, other)
    }
    (version,) = seen
    return version


@when(parsers.parse("{who:w} changes what was looked at to {price} EUR"))
def changes_what_was_looked_at(story: Story, version: str, who: str, price: str) -> None:
    change_price(story, who, price, version)


@then(parsers.parse("{product:w} cost {price} EUR"))
def costs(story: Story, product: str, price: str) -> None:
    anybody = next(iter(story.clients.values()))
    found = story.run(anybody.get_product(story.products[product].id)).data.price
    assert found == models.Money(amount_minor=int(Decimal(price) * 100), currency="EUR")


@then(parsers.parse("{who:w} gets them"))
def gets_them(story: Story, who: str) -> None:
    story.require_no_refusal()


@then(parsers.parse("{who:w} finds the order among those of {other:w}"))
def finds_the_order(story: Story, who: str, other: str) -> None:
    found = story.run(story.clients[who].list_all_orders(user_id=user_id(story, other))).data.items
    assert [order.id for order in found] == [story.order.id]


@then(parsers.parse("it is on record that {who:w} has changed the status of {other:w} from {old:w} to {new:w}"))
def is_on_record(story: Story, who: str, other: str, old: str, new: str) -> None:
    me, subject = story.run(story.clients[who].get_me()).data.id, f"user/{user_id(story, other)}"
    records = story.run(story.clients[who].list_audit_records(subject=subject, action="user.status_changed")).data.items
    assert [(one.actor, one.before, one.after) for one in records] == [
        (f"user/{me}", {"status": old}, {"status": new}),
    ]
