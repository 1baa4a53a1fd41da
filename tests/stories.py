"""What happens in one scenario of tests/acceptance: who acts, by which name, and what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx
from contract_runtime.http_client import Answer, ApiError
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient

from conftest import People, Platform, http_client, new_key

T = TypeVar("T")
# The states of an order that a person calls otherwise than the API does.
STATES = {"waiting for payment": "pending_payment", "being refunded": "refunding"}
# By what a person says of a card, the token for which the sandbox behaves so.
CARDS = {
    "a good card": "tok_approved",
    "a card that is declined": "tok_declined",
    "a card while the payment provider fails": "tok_error",
    "a card while the payment provider is slow": "tok_timeout",
    "a card whose refund fails at first": "tok_refund_error",
}


class Story:
    """Acts one after the other, through the public API; what somebody is refused has to be looked at by a step.

    Args:
        platform: where it happens.
        http: the connections of everybody in it.
        runner: their event loop; steps are ordinary functions.
    """

    def __init__(self, platform: Platform, http: httpx.AsyncClient, runner: asyncio.Runner) -> None:
        self.people = People(http, platform)
        self.clients: dict[str, BackendClient] = {}
        self.logins: dict[str, models.LoginRequest] = {}
        self.products: dict[str, models.Product] = {}
        # Of all, the newest last.
        self.orders: list[models.Order] = []
        self.again: Callable[[], Coroutine[object, object, Answer[models.Order]]] | None = None
        self._runner = runner
        self._refusal: tuple[str, ApiError] | None = None

    @property
    def order(self) -> models.Order:
        """The one that is talked about."""
        return self.orders[-1]

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        """What comes of it.

        Raises:
            ApiError: it is refused.
        """
        return self._runner.run(coroutine)

    def tries(self, who: str, coroutine: Coroutine[object, object, Answer[T]]) -> T | None:
        """What somebody gets, or None where they are refused, which the next step has to look at."""
        self.require_no_refusal()
        try:
            return self.run(coroutine).data
        except ApiError as error:
            self._refusal = (who, error)
            return None

    def changes(self, who: str, act: Callable[[], Coroutine[object, object, Answer[models.Order]]]) -> None:
        """The same for what may be said twice, and is about an order."""
        self.again = act
        self.tries(who, act())

    def told(self, who: str) -> str:
        """Why somebody was refused what they tried last, in the words of the answer."""
        assert self._refusal is not None, f"{who} was refused nothing"
        (refused, error), self._refusal = self._refusal, None
        assert refused == who
        assert error.problem is not None
        return error.problem.title

    def require_no_refusal(self) -> None:
        """Nobody was refused anything that no step has looked at."""
        assert self._refusal is None, f"{self._refusal[0]} was refused: {self._refusal[1]}"

    def log_in(self, who: str, login: models.LoginRequest) -> None:
        """A session, by which somebody goes on."""
        client = BackendClient(self.people.http)
        if (tokens := self.tries(who, client.login(login))) is not None:
            client.access_token = tokens.access_token
            self.clients[who] = client

    def require_no_session(self, who: str) -> None:
        """Somebody's session has ended."""
        self.tries(who, self.clients[who].get_me())
        assert self.told(who) == "Authentication is required"

    def now(self) -> models.Order:
        """The order as its customer sees it."""
        owner = next(name for name, client in self.clients.items() if self._is_owner(client))
        return self.run(self.clients[owner].get_order(self.order.id)).data

    def _is_owner(self, client: BackendClient) -> bool:
        return self.run(client.get_me()).data.id == self.order.user_id

    def place(self, who: str, *lines: tuple[str, int]) -> None:
        """An order of products by their names."""
        client, key = self.clients[who], new_key()
        body = models.CreateOrderRequest(
            items=[models.OrderLine(product_id=self.products[name].id, quantity=quantity) for name, quantity in lines]
        )
        self.again = lambda: client.create_order(body, idempotency_key=key)
        if (order := self.tries(who, self.again())) is not None:
            self.orders.append(order)

    def pay(self, who: str, card: str) -> None:
        """A payment of the order by one of CARDS."""
        client, key, order_id = self.clients[who], new_key(), self.order.id
        payment = models.PaymentRequest(payment_token=CARDS[card])
        self.changes(who, lambda: client.pay_order(order_id, payment, idempotency_key=key))


@contextmanager
def story_at(platform: Platform) -> Iterator[Story]:
    """A story that begins; it fails where somebody was refused something and no step has said so."""
    with asyncio.Runner() as runner:
        http = http_client(platform.url)
        try:
            story = Story(platform, http, runner)
            yield story
            story.require_no_refusal()
        finally:
            runner.run(http.aclose())
