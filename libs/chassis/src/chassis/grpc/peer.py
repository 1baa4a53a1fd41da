"""How a service calls another one: context passed on, the deadline spent, errors mapped back, reads retried."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from importlib import import_module
from typing import Generic, NoReturn, Protocol, TypeVar, cast

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions
from google.rpc.status_pb2 import Status

from chassis import context
from chassis.errors import ServiceError
from chassis.grpc.server import STATUS_DETAILS
from chassis.metrics.families import Counter
from chassis.observe import Work, observe
from chassis.tracing import conventions

Request = TypeVar("Request")
Response = TypeVar("Response")
Stub = TypeVar("Stub")
Request_contra = TypeVar("Request_contra", contravariant=True)
Response_co = TypeVar("Response_co", covariant=True)
Metadata = Sequence[tuple[str, str | bytes]]

# One layer retries, at most twice, with full jitter ("Exponential Backoff And Jitter", AWS 2015).
_MAX_RETRIES = 2
_BACKOFF_SECONDS = 0.025
# A second execution is harmless: the contract says so (descriptor.proto, MethodOptions.IdempotencyLevel).
_REPEATABLE = (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)
_RETRIES = Counter(
    "backend_call_retries_total",
    "Retries of calls: made, or refused because the budget was used up",
    result=("made", "refused"),
)


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
            _RETRIES.add("refused")
            return False
        _RETRIES.add("made")
        self._balance -= 1
        return True


class SendUnary(Protocol[Request_contra, Response_co]):
    """Makes a call of one message for one."""

    def __call__(
        self, request: Request_contra, /, *, timeout: float | None, metadata: Metadata
    ) -> Awaitable[Response_co]:
        """What is awaited; it raises `grpc.aio.AioRpcError`."""
        ...


class SendStreaming(Protocol[Request_contra, Response_co]):
    """Makes a call of one message for many."""

    def __call__(
        self, request: Request_contra, /, *, timeout: float | None, metadata: Metadata
    ) -> AsyncIterable[Response_co]:
        """What is iterated; it raises `grpc.aio.AioRpcError`."""
        ...


class Channel(Protocol):
    """What a peer needs of a channel: `chassis.grpc.channel.Channel` has it, and `grpc.aio.Channel`."""

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Request], bytes],
        response_deserializer: Callable[[bytes], Response],
        /,
    ) -> SendUnary[Request, Response]:
        """What makes the call."""
        ...

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Request], bytes],
        response_deserializer: Callable[[bytes], Response],
        /,
    ) -> SendStreaming[Request, Response]:
        """What makes the call."""
        ...


class Peer:
    """A service that this one calls, over a channel of ours or of grpcio.

    `peer.stub(OrderServiceStub)` is the generated stub. Its calls take the request message alone; context and deadline
    are those of the request being served. They raise ServiceError: whatever the peer answered, UNAVAILABLE when it
    could not be reached, DEADLINE_EXCEEDED when the deadline has passed. A method that the contract calls idempotent
    (`option idempotency_level`) is tried again when the peer is unavailable.

    Args:
        channel: to it.
        name: of the service, for telemetry.
    """

    def __init__(self, channel: Channel, name: str = "") -> None:
        self._channel = channel
        self._name = name
        self._budget = RetryBudget()

    def stub(self, make: Callable[[grpc.aio.Channel], Stub]) -> Stub:
        """A generated stub whose calls go to this peer."""
        # What a method's contract says of it is in the module beside the stub's, which the stub itself imports only for messages.
        import_module(make.__module__.removesuffix("_grpc"))
        return make(cast("grpc.aio.Channel", self))

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Request], bytes],
        response_deserializer: Callable[[bytes], Response],
        _registered_method: bool = False,
    ) -> UnaryMethod[Request, Response]:
        """Part of the stub protocol."""
        send = self._channel.unary_unary(method, request_serializer, response_deserializer)
        return UnaryMethod(method, send, self._budget, may_repeat=_is_repeatable(method), peer=self._name)

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Request], bytes],
        response_deserializer: Callable[[bytes], Response],
        _registered_method: bool = False,
    ) -> StreamMethod[Request, Response]:
        """Part of the stub protocol."""
        send = self._channel.unary_stream(method, request_serializer, response_deserializer)
        return StreamMethod(method, send, self._name)

    def stream_unary(self, method: str, *_args: object, **_kwargs: object) -> NoReturn:
        """Part of the stub protocol; no contract of ours streams requests."""
        raise TypeError(f"{method}: a peer is not sent streams of requests")

    stream_stream = stream_unary


class UnaryMethod(Generic[Request, Response]):
    """A stub's unary method: call it within a request, await the response message."""

    __slots__ = ("_budget", "_may_repeat", "_send", "_work")

    def __init__(
        self,
        path: str,
        send: SendUnary[Request, Response],
        budget: RetryBudget,
        *,
        may_repeat: bool,
        peer: str = "",
    ) -> None:
        self._work = _work(path, peer)
        self._send = send
        self._budget = budget
        self._may_repeat = may_repeat

    async def __call__(self, request: Request) -> Response:
        """Make the call; errors as `Peer` says."""
        current = context.current()
        self._budget.earn()
        attempt = 0
        with observe(self._work) as unit:
            metadata = current.to_metadata(unit.span) if current else []
            while True:
                remaining = current.remaining() if current else None
                if remaining is not None and remaining <= 0:
                    raise ServiceError("DEADLINE_EXCEEDED")
                try:
                    return await self._send(request, timeout=remaining, metadata=metadata)
                except grpc.aio.AioRpcError as error:
                    if attempt == _MAX_RETRIES or not self._may_retry(error):
                        raise
                await asyncio.sleep(random.uniform(0, _BACKOFF_SECONDS * 2**attempt))
                attempt += 1

    def _may_retry(self, error: grpc.aio.AioRpcError) -> bool:
        if not self._may_repeat or _service_error(error).reason != "UNAVAILABLE":
            return False
        # Cancelled: the caller has gone, and no retry is owed to anybody.
        return error.code() is not grpc.StatusCode.CANCELLED and self._budget.spend()


class StreamMethod(Generic[Request, Response]):
    """A stub's server-streaming method: call it within a request, iterate the response messages."""

    __slots__ = ("_send", "_work")

    def __init__(self, path: str, send: SendStreaming[Request, Response], peer: str = "") -> None:
        self._work = _work(path, peer)
        self._send = send

    async def __call__(self, request: Request) -> AsyncIterator[Response]:
        """Make the call; errors as `Peer` says, after the messages that came before them."""
        current = context.current()
        remaining = current.remaining() if current else None
        with observe(self._work) as unit:
            metadata = current.to_metadata(unit.span) if current else []
            async for message in self._send(request, timeout=remaining, metadata=metadata):
                yield message


def _work(path: str, peer: str) -> Work:
    name = path.strip("/")
    return Work("call", name, _translate, conventions.rpc_client(name, peer))


def _translate(error: Exception, _method: str) -> ServiceError | None:
    return _service_error(error) if isinstance(error, grpc.aio.AioRpcError) else None


def _is_repeatable(path: str) -> bool:
    """What the contract says of the method, by its path, "/package.Service/Method"."""
    method = descriptor_pool.Default().FindMethodByName(path.strip("/").replace("/", "."))
    return method.GetOptions().idempotency_level in _REPEATABLE


def _service_error(error: grpc.aio.AioRpcError) -> ServiceError:
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            return ServiceError.from_status(Status.FromString(value))
    return ServiceError.from_status(Status(code=error.code().value[0], message=error.details() or ""))
