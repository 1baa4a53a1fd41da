"""How a service calls another one: context passed on, the deadline spent, errors mapped back, reads retried."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.rpc.status_pb2 import Status

from chassis import context
from chassis.errors import ServiceError
from chassis.grpc.server import STATUS_DETAILS

# One layer retries, at most twice, with full jitter (design section 7; "Exponential Backoff And Jitter", AWS 2015).
_MAX_RETRIES = 2
_BACKOFF_SECONDS = 0.025


async def call(method: Any, request: Any, *, retry: bool = False) -> Any:
    """Call a unary stub method within the current request.

    Args:
        method: the stub's method.
        request: its request message.
        retry: whether a second execution is harmless: for reads and for calls with an idempotency key.

    Raises:
        ServiceError: whatever the peer answered; UNAVAILABLE when it could not be reached, DEADLINE_EXCEEDED when
            the request's deadline passed.
    """
    current = context.current()
    metadata = current.to_metadata() if current else []
    attempt = 0
    while True:
        remaining = current.remaining() if current else None
        if remaining is not None and remaining <= 0:
            raise ServiceError("DEADLINE_EXCEEDED")
        try:
            return await method(request, timeout=remaining, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            known = _service_error(error)
            if not retry or attempt >= _MAX_RETRIES or known.reason != "UNAVAILABLE":
                raise known from error
        await asyncio.sleep(random.uniform(0, _BACKOFF_SECONDS * 2**attempt))
        attempt += 1


async def stream(method: Any, request: Any) -> AsyncIterator[Any]:
    """Call a server-streaming stub method within the current request.

    Raises:
        ServiceError: whatever the peer answered.
    """
    current = context.current()
    remaining = current.remaining() if current else None
    try:
        async for message in method(request, timeout=remaining, metadata=current.to_metadata() if current else []):
            yield message
    except grpc.aio.AioRpcError as error:
        raise _service_error(error) from error


def _service_error(error: grpc.aio.AioRpcError) -> ServiceError:
    metadata: Any = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == STATUS_DETAILS and isinstance(value, bytes):
            return ServiceError.from_status(Status.FromString(value))
    return ServiceError.from_status(Status(code=error.code().value[0], message=error.details() or ""))
