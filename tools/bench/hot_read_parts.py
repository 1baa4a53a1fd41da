"""What was written anew for the path of every request, beside what it stands in for: microseconds of CPU, in one run.

    .venv/bin/python tools/bench/hot_read_parts.py

`hot_read.py` measures the whole; this says which of it is worth its lines (ADR 0026).
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from time import thread_time
from typing import Any

import msgspec
import pyqwest
import starlette.requests
import starlette.responses
import uvloop
from chassis import host
from chassis.context import RequestContext
from chassis.grpc import framing
from chassis.http.answers import json_answer
from chassis.http.request import Request
from chassis.http.routes import Routes
from chassis.observe import Work, observe
from chassis.presence import Presence
from contracts.bff.v1.models import Money
from contracts.bff.v1.operations import OPERATIONS
from hot_read_service import ORDER, REQUEST_ID, bff_headers, scope
from starlette.routing import Route, Router

_TIMES = 20_000
_PATH = f"/v1/orders/{ORDER}"
_FRAME = framing.encode_frame(b"x" * 500)
_ASKED = (b"x-request-id", b"traceparent", b"x-client-address", b"accept", b"authorization", b"if-none-match")

Part = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class FrozenContext:
    """What the context of a request was: a frozen dataclass with its members."""

    request_id: str
    deadline: float | None = None
    caller: object = None
    token: str = ""
    traceparent: str = ""
    presence: object = None


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(_message: Any) -> None:
    return


async def _nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    return


async def _chunks() -> AsyncIterator[bytes]:
    yield _FRAME


def _synchronous(part: Callable[[], object]) -> Part:
    async def run() -> None:
        part()

    return run


def parts() -> dict[str, tuple[Part, Part]]:
    """By name: what is used, and what it stands in for."""
    paths = {operation.path: _nothing for operation in OPERATIONS}
    routes, router = Routes(paths), Router([Route(path, _Application()) for path in paths], redirect_slashes=False)
    asked = scope("GET", _PATH, bff_headers("x" * 400))
    names = [name.decode() for name in _ASKED]
    model = Money(amount_minor=1, currency="EUR")
    lines = [(name.decode(), value.decode()) for name, value in bff_headers("x" * 400)]
    work = Work("valkey", "GET")

    def headers() -> None:
        request = Request(asked, _receive)
        for name in _ASKED:
            request.header(name)

    def starlette_headers() -> None:
        request = starlette.requests.Request(asked, _receive)
        for name in names:
            request.headers.get(name)

    def starlette_answer() -> None:
        made = starlette.responses.Response(msgspec.json.encode(model), 200, media_type="application/json")
        made.headers["etag"] = '"1"'

    async def deadline() -> None:
        with Presence(_receive, asyncio.get_running_loop().time() + 2):
            pass

    async def asyncio_timeout() -> None:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + 2):  # noqa: ASYNC100 - its own cost
            pass

    def call() -> None:
        _taken(host._Request("http://order/s.S/Get", lines, _FRAME))  # noqa: SLF001 - what is measured

    def pyqwest_call() -> None:
        _taken(pyqwest.Request("POST", "http://order/s.S/Get", pyqwest.Headers(lines), _FRAME))

    async def whole() -> None:
        body = b""
        async for chunk in _chunks():
            body = body + chunk if body else chunk
        framing.decode_single(body, b"identity", 4096)

    async def stream() -> None:
        async for _ in framing.decode_stream(_chunks(), b"identity", 4096):
            pass

    def observed() -> None:
        with observe(work):
            pass

    return {
        "a path is found": (_synchronous(lambda: routes.find(_PATH)), lambda: router(dict(asked), _receive, _send)),
        "six headers are read": (_synchronous(headers), _synchronous(starlette_headers)),
        "an answer is made": (_synchronous(lambda: json_answer(model, version=1)), _synchronous(starlette_answer)),
        "a deadline is kept": (deadline, asyncio_timeout),
        "a context is made": (
            _synchronous(lambda: RequestContext(REQUEST_ID, deadline=1.0, token="x")),  # noqa: S106 - no token
            _synchronous(lambda: FrozenContext(REQUEST_ID, deadline=1.0, token="x")),  # noqa: S106 - no token
        ),
        "a call is given to the host": (_synchronous(call), _synchronous(pyqwest_call)),
        "an answer's message is read": (whole, stream),
        "a unit of work is observed (beside nothing)": (_synchronous(observed), _synchronous(lambda: None)),
    }


class _Application:
    """An ASGI application, to Starlette's router."""

    async def __call__(self, _scope: Any, _receive: Any, _send: Any) -> None:
        return


def _taken(request: Any) -> None:
    """What the host reads of a request."""
    for _ in request.headers.items():
        pass
    if not (request.method and request.url and request.content):
        raise ValueError("not a request")


async def _cost(part: Part) -> float:
    began = thread_time()
    for _ in range(_TIMES):
        await part()
    return (thread_time() - began) / _TIMES * 1e6


async def measure() -> None:
    """Print the best of several turns each."""
    print(f"{'':<46} {'ours':>6} {'other':>6}")
    for name, (ours, other) in parts().items():
        best = [min([await _cost(part) for _ in range(5)]) for part in (ours, other)]
        print(f"{name:<46} {best[0]:6.2f} {best[1]:6.2f} us")


if __name__ == "__main__":
    gc.disable()
    uvloop.run(measure())
