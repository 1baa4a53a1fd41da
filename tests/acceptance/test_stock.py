from __future__ import annotations

import asyncio

from contract_runtime.http_client import Answer
from contracts.bff.v1 import models
from pytest_bdd import parsers, scenarios, when
from stories import Story

from conftest import new_key, order_of

scenarios("stock.feature")


def adjust(story: Story, who: str, product: str, delta: int) -> None:
    body = models.StockAdjustment(delta=delta, reason="counted")
    client, product_id = story.clients[who], story.products[product].id
    story.tries(who, client.adjust_stock(product_id, body, idempotency_key=new_key()))


@when(parsers.parse("{number:d} orders of 1 {product:w} arrive from {who:w} at the same moment"))
def orders_arrive(story: Story, number: int, product: str, who: str) -> None:
    client, body = story.clients[who], order_of((story.products[product], 1))

    async def all_at_once() -> list[Answer[models.Order] | BaseException]:
        posts = (client.create_order(body, idempotency_key=new_key()) for _ in range(number))
        return await asyncio.gather(*posts, return_exceptions=True)

    assert len(story.run(all_at_once())) == number


@when(parsers.parse("{who:w} adds {number:d} {product:w} to the stock"))
def adds_to_the_stock(story: Story, who: str, number: int, product: str) -> None:
    adjust(story, who, product, number)


@when(parsers.parse("{who:w} takes {number:d} {product:w} out of the stock"))
def takes_out_of_the_stock(story: Story, who: str, number: int, product: str) -> None:
    adjust(story, who, product, -number)
