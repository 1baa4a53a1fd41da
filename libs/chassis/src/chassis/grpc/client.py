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


class RetryBudget:
    """At most so many retries for a number of calls: a peer that fails everybody is not called three times as often.

    Every call earns a share of a retry and every retry costs one, as in "The Tail at Scale" and Finagle's budgets.

    Args:
        share: retries a call.
        reserve: retries that can be saved up, and that there are at the start.
    """

    def __init__(self, share: float = 0.2, reserve: float = 10.0) -> None:
        self._share = share
        self._reserve = reserve
        self._balance = reserve

    def earn(self) -> None:
        """A first attempt was made."""
        self._balance = min(self._reserve, self._balance + self._share)

    def spend(self) -> bool:
        """Whether a retry may be made; it is then paid for."""
        if self._balance < 1:
            return False
        self._balance -= 1
        return True


# By service of the called method: one that fails does not use up the others' retries.
_budgets: dict[str, RetryBudget] = {}


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
    budget = _budgets.setdefault(_service_of(method), RetryBudget())
    budget.earn()
    attempt = 0
    while True:
        remaining = current.remaining() if current else None
        if remaining is not None and remaining <= 0:
            raise ServiceError("DEADLINE_EXCEEDED")
        try:
            return await method(request, timeout=remaining, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            known = _service_error(error)
            again = retry and attempt < _MAX_RETRIES and known.reason == "UNAVAILABLE"
            # Cancelled: the caller has gone, and no retry is owed to anybody.
            if not again or error.code() is grpc.StatusCode.CANCELLED or not budget.spend():
                raise known from error
        await asyncio.sleep(random.uniform(0, _BACKOFF_SECONDS * 2**attempt))
        attempt += 1


def _service_of(method: Any) -> str:
    # grpc.aio's and our own callables know their path, "/package.Service/Method".
    path = getattr(method, "path", None) or getattr(method, "_method", b"")
    text = path.decode() if isinstance(path, bytes) else str(path)
    return text.strip("/").partition("/")[0]


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
