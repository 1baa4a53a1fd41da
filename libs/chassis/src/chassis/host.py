"""The Envoy host, known to the chassis here and nowhere else.

Services run as an HTTP filter inside an Envoy process (ADR 0001). Everything they need from it is one thing: a
gRPC channel over one of that Envoy's upstream clusters. On a stock ASGI server, give the application a
`grpc.aio` channel instead; nothing else changes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any

from pyqwest import Headers, ReadError, Request, WriteError

from chassis import context
from chassis.grpc.channel import Channel, TransportResponse

# Envoy fixes a stream's timeout when the transport object is made; rounding keeps the number of objects small.
# The exact deadline is asyncio's, this one only makes sure that Envoy gives the stream back.
_TIMEOUT_STEP_SECONDS = 0.25


def upstream_channel(cluster: str) -> Channel:
    """A channel over this Envoy's upstream cluster. Usable only while an inbound request is being served."""
    return Channel(_EnvoyTransport(cluster))


@lru_cache(maxsize=256)
def _transport(cluster: str, steps: int) -> Any:
    # pyvoy provides this module only inside its own Envoy process.
    from pyvoy.asgi.httpclient import HTTPTransport

    return HTTPTransport(cluster, timeout=steps * _TIMEOUT_STEP_SECONDS)


class _EnvoyTransport:
    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._base_url = f"http://{cluster}"

    async def post(
        self, path: str, headers: list[tuple[str, str]], body: bytes, timeout: float | None
    ) -> TransportResponse:
        steps = 240 if timeout is None else math.ceil(timeout / _TIMEOUT_STEP_SECONDS) + 1
        request = Request("POST", self._base_url + path, Headers(headers), body)
        await _check_caller()
        try:
            response = await _transport(self._cluster, steps).execute(request)
        except (ReadError, WriteError) as error:
            await _check_caller()
            raise ConnectionError(str(error)) from error
        return TransportResponse(response.status, response.headers, _chunks(response), response.trailers)


async def _check_caller() -> None:
    """Envoy makes no call for a request that has ended, and says nothing: the call would hang until its deadline."""
    current = context.current()
    if current is not None and current.presence is not None:
        await current.presence.check()


async def _chunks(response: Any) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.content:
            yield chunk
    except (ReadError, WriteError) as error:
        raise ConnectionError(str(error)) from error
    finally:
        await response.aclose()


def accept_late_answers(loop: asyncio.AbstractEventLoop) -> None:
    """Let the host answer what nobody waits for any more, without an error in the log.

    A wait ends early when its deadline passes or its caller goes away; the future is cancelled with it. The host
    completes its futures without asking whether they have been (pyvoy 1.3, `src/asgi/python/mod.rs` and
    `src/asgi/transport.rs`), and asyncio reports an InvalidStateError. Nothing is lost by it: who waited has gone.
    Every other error goes to the handler that was there.
    """
    handle = loop.get_exception_handler() or _default

    def but_late_answers(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not _is_late_answer(context.get("exception")):
            handle(loop, context)

    loop.set_exception_handler(but_late_answers)


def _default(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    loop.default_exception_handler(context)


def _is_late_answer(error: BaseException | None) -> bool:
    if not isinstance(error, asyncio.InvalidStateError):
        return False
    # The loop calls the host's native code directly; an error of ours has a function of ours on its way.
    step = error.__traceback__
    while step is not None:
        if not step.tb_frame.f_code.co_filename.startswith("uvloop/"):
            return False
        step = step.tb_next
    return True
