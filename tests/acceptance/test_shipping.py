from __future__ import annotations

from contracts.bff.v1 import models
from pytest_bdd import parsers, scenarios, then, when
from stories import STATES, Story

from conftest import new_key

scenarios("shipping.feature")


@when(parsers.parse("{who:w} refunds the order and puts its pieces into stock"))
def refunds_and_restocks(story: Story, who: str) -> None:
    body = models.RefundRequest(reason="came back", restock=True)
    story.tries(who, story.clients[who].refund_order(story.order.id, body, idempotency_key=new_key()))


@then(parsers.parse("{who:w} sees that it was {states}"))
def sees_the_history(story: Story, who: str, states: str) -> None:
    history = story.run(story.clients[who].get_order_history(story.order.id)).data.items
    assert [one.to_status for one in history] == [STATES.get(state, state) for state in states.split(", ")]
