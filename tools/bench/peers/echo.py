"""The call that every library makes and serves here, and how its cost to a client is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

SERVICE = "bench.v1.Echo"
METHOD = "Say"
PATH = f"/{SERVICE}/{METHOD}"
TEXT = "x" * 100
# Of an Envoy that hosts a client: where the server is.
CLUSTER = "echo"
AT_ONCE = 16
Call = Callable[[], Awaitable[object]]


async def cost(call: Call, calls: int) -> float:
    """CPU time of this process for a call, in microseconds, with `AT_ONCE` under way."""

    async def caller() -> None:
        for _ in range(calls // AT_ONCE):
            await call()

    started = time.process_time()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return (time.process_time() - started) / (calls // AT_ONCE * AT_ONCE) * 1e6


def answering_with_cost(call: Call) -> ASGIApp:
    """An ASGI application, for a client that lives in an Envoy: GET /N makes N calls and answers with their cost."""

    async def application(scope: Scope, _receive: Receive, send: Send) -> None:
        measured = await cost(call, int(scope["path"].strip("/")))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%.2f" % measured})

    return application
