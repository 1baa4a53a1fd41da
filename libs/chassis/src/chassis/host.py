"""The Envoy host, known to the chassis here and nowhere else.

Services run as an HTTP filter inside an Envoy process (ADR 0001). Everything they need from it is one thing: a
gRPC channel over one of that Envoy's upstream clusters, which belongs to a request or (ADR 0031) to a worker. On a stock
ASGI server, give the application a `grpc.aio` channel instead; nothing else changes.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterable, Mapping
from functools import lru_cache
from typing import Protocol

import grpc
from pyqwest import ReadError, WriteError

from chassis import context
from chassis.envoy_bootstrap import EGRESS_SOCKET
from chassis.grpc.channel import Channel, TransportResponse

# Envoy fixes a stream's timeout when the transport object is made; rounding keeps the number of objects small.
# The exact deadline is asyncio's, this one only makes sure that Envoy gives the stream back.
_TIMEOUT_STEP_SECONDS = 0.25
_EGRESS_OPTIONS = (
    # Who repeats a call is Peer.
    ("grpc.enable_retries", 0),
    # A worker may begin before its Envoy listens. It is the same process, so a call waits for it, not for the callee.
    ("grpc.service_config", '{"methodConfig": [{"name": [{}], "waitForReady": true}]}'),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


def upstream_channel(cluster: str) -> Channel:
    """A channel over this Envoy's upstream cluster. Usable only while an inbound request is being served."""
    return Channel(_EnvoyTransport(cluster))


def egress_channel(upstream: str) -> grpc.aio.Channel:
    """A channel to an upstream for what serves no request: a worker. Its `async with` closes it.

    A call takes 60 s at most, or less by a deadline of its own. Envoy refuses whoever is no upstream: PERMISSION_DENIED.

    Raises:
        RuntimeError: this service's row has no upstreams.
    """
    path = os.environ.get(EGRESS_SOCKET)
    if path is None:
        raise RuntimeError(f"{upstream} cannot be called: this service's row (mesh/topology.py) has no upstreams")
    return grpc.aio.insecure_channel(f"unix:{path}", options=(*_EGRESS_OPTIONS, ("grpc.default_authority", upstream)))


@lru_cache(maxsize=256)
def _transport(cluster: str, steps: int) -> _Transport:
    # pyvoy provides this module only inside its own Envoy process.
    from pyvoy.asgi.httpclient import HTTPTransport

    # It takes less, and gives more, than it declares.
    return HTTPTransport(cluster, timeout=steps * _TIMEOUT_STEP_SECONDS)  # type: ignore[return-value]


class _Headers(list[tuple[str, str]]):
    """Header lines, as the host takes them."""

    __slots__ = ()

    def items(self) -> _Headers:
        """All lines."""
        return self


class _Request:
    """What the host reads of a request (pyvoy 1.3, `HTTPTransport.execute` in `src/asgi/transport.rs`).

    pyqwest's own `Request` and `Headers` take seven times as long (ADR 0026): they check and copy each line, and the host
    does so again.
    """

    __slots__ = ("content", "headers", "url")

    method = "POST"

    def __init__(self, url: str, headers: list[tuple[str, str]], content: bytes) -> None:
        self.url = url
        self.headers = _Headers(headers)
        self.content = content


class _Response(Protocol):
    """What the host gives of an answer."""

    status: int
    headers: Mapping[str, str]
    trailers: Mapping[str, str]
    content: AsyncIterable[bytes]

    async def aclose(self) -> None: ...


class _Transport(Protocol):
    """The host's client of one cluster."""

    def execute(self, request: _Request) -> asyncio.Future[_Response]: ...


class _EnvoyTransport:
    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._base_url = f"http://{cluster}"

    async def post(
        self, path: str, headers: list[tuple[str, str]], body: bytes, timeout: float | None
    ) -> TransportResponse:
        steps = 240 if timeout is None else math.ceil(timeout / _TIMEOUT_STEP_SECONDS) + 1
        await _check_caller()
        answer = _transport(self._cluster, steps).execute(_Request(self._base_url + path, headers, body))
        try:
            response = await answer
        except (ReadError, WriteError) as error:
            await _check_caller()
            raise ConnectionError(str(error)) from error
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                # It came in the moment of the cancellation, and nobody has seen it.
                await answer.result().aclose()
            raise
        return TransportResponse(response.status, response.headers, _Chunks(response), response.trailers)


async def _check_caller() -> None:
    """Envoy makes no call for a request that has ended, and says nothing: the call would hang until its deadline."""
    current = context.current()
    if current is not None and current.presence is not None:
        await current.presence.check()


class _Chunks:
    """The body of an answer. One that is not read to its end is to be closed, or Envoy keeps its stream open."""

    __slots__ = ("_content", "aclose")

    def __init__(self, response: _Response) -> None:
        self._content = response.content.__aiter__()
        self.aclose = response.aclose

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk: bytes = await self._content.__anext__()
        except (ReadError, WriteError) as error:
            raise ConnectionError(str(error)) from error
        return chunk


def accept_late_answers(loop: asyncio.AbstractEventLoop) -> None:
    """Let the host answer what nobody waits for any more, without an error in the log.

    A wait ends early when its deadline passes or its caller goes away; the future is cancelled with it. The host
    completes its futures without asking whether they have been (pyvoy 1.3, `src/asgi/python/mod.rs` and
    `src/asgi/transport.rs`), and asyncio reports an InvalidStateError. Nothing is lost by it: who waited has gone.
    Every other error goes to the handler that was there.
    """
    handle = loop.get_exception_handler() or _default

    def but_late_answers(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        if not _is_late_answer(context.get("exception")):
            handle(loop, context)

    loop.set_exception_handler(but_late_answers)


def _default(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    loop.default_exception_handler(context)


def _is_late_answer(error: object) -> bool:
    if not isinstance(error, asyncio.InvalidStateError):
        return False
    # The loop calls the host's native code directly; an error of ours has a function of ours on its way.
    step = error.__traceback__
    while step is not None:
        if not step.tb_frame.f_code.co_filename.startswith("uvloop/"):
            return False
        step = step.tb_next
    return True
