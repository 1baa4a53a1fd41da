"""Whoever is to end ends, also when that comes together with what a library waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from chassis.events.nats import Nats
from chassis.events.nats_consumer import NatsConsumer
from nats.aio.client import Client
from nats.aio.msg import Msg


@dataclass
class Library:
    """Waits as nats-py does, for an answer that the test gives."""

    answer: asyncio.Future[Msg] = field(default_factory=asyncio.Future)
    max_payload: int = 1000

    async def request(self, *_: object, **__: object) -> Msg:
        return await asyncio.wait_for(self.answer, 10)


class Broker(Nats):
    """Is connected."""

    def __init__(self, library: Library) -> None:
        super().__init__("tls://127.0.0.1:1", Path(), "test")
        self.library = library

    def connected(self) -> Client:
        return cast("Client", self.library)


WAITS: dict[str, Callable[[Broker], Awaitable[object]]] = {
    "how much there is": lambda broker: NatsConsumer(broker, "test").backlog(),
    "dead letters": lambda broker: NatsConsumer(broker, "test").dead_letters(),
    "storing": lambda broker: broker.store("events.a", b"", {}),
}


@pytest.mark.parametrize("waits", WAITS.values(), ids=WAITS)
async def test_a_cancellation_that_comes_with_the_answer_is_heeded(
    waits: Callable[[Broker], Awaitable[object]],
) -> None:
    library = Library()
    broker = Broker(library)

    async def work() -> None:
        while True:
            await waits(broker)
            await asyncio.sleep(0)
            library.answer = asyncio.Future()

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    library.answer.set_result(Msg(_client=broker.connected(), data=b'{"stream": "events", "seq": 1}'))
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=5)
    assert done
    assert task.cancelled(), task.exception()
