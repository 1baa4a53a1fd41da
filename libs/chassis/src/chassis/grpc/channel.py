"""Carries the generated stubs over any HTTP/2 transport.

Give a `Channel` to a generated stub as if it were a `grpc.aio.Channel`. Calls raise `grpc.aio.AioRpcError`, as
grpcio's do, so callers cannot tell the two apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Generic, NoReturn, Protocol, TypeVar

import grpc

from chassis import context
from chassis.grpc import framing
from chassis.grpc.framing import ProtocolError
from chassis.grpc.server import STATUS_DETAILS
from chassis.presence import CallerGoneError

Request = TypeVar("Request")
Response = TypeVar("Response")
Metadata = Sequence[tuple[str, str | bytes]]

DEFAULT_RESPONSE_LIMIT_BYTES = 4 * 1024 * 1024
_REQUEST_HEADERS = (("content-type", "application/grpc"), ("te", "trailers"), ("grpc-accept-encoding", "identity,gzip"))
_CLOCK_SECONDS = 0.001
_CODES = {code.value[0]: code for code in grpc.StatusCode}
# PROTOCOL-HTTP2.md, "HTTP2 status to gRPC status": what an answer without a grpc-status means.
_CODE_BY_HTTP_STATUS = {
    400: grpc.StatusCode.INTERNAL,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    429: grpc.StatusCode.UNAVAILABLE,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.UNAVAILABLE,
}


class Chunks(Protocol):
    """The body of an answer as it comes; closed by whoever does not read it to its end."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Itself."""
        ...

    def __anext__(self) -> Awaitable[bytes]:
        """The next part; raises ConnectionError, and StopAsyncIteration after the last."""
        ...

    def aclose(self) -> Awaitable[None]:
        """Give up the rest."""
        ...


@dataclass(slots=True)
class TransportResponse:
    """An HTTP/2 response; `trailers` is filled once `chunks` is exhausted."""

    status: int
    headers: Mapping[str, str]
    chunks: Chunks
    trailers: Mapping[str, str] = field(default_factory=dict)


class Transport(Protocol):
    """Sends one HTTP/2 POST upstream."""

    async def post(
        self, path: str, headers: list[tuple[str, str]], body: bytes, timeout: float | None
    ) -> TransportResponse:
        """Send and return once the response headers are there.

        Args:
            path: the `:path` of the request.
            headers: all headers but the pseudo-headers.
            body: the whole request body.
            timeout: seconds after which the transport itself gives up and resets the stream.

        Raises:
            ConnectionError: the request may or may not have reached the peer.
            CallerGoneError: whoever this call was for no longer waits.
        """
        ...


class Channel:
    """A channel for generated stubs: unary and server-streaming calls."""

    def __init__(self, transport: Transport, *, response_limit_bytes: int = DEFAULT_RESPONSE_LIMIT_BYTES) -> None:
        self._transport = transport
        self._limit = response_limit_bytes

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Request], bytes],
        response_deserializer: Callable[[bytes], Response],
        _registered_method: bool = False,
    ) -> UnaryCall[Request, Response]:
        """Part of the stub protocol."""
        return UnaryCall(self._transport, method, request_serializer, response_deserializer, self._limit)

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Request], bytes],
        response_deserializer: Callable[[bytes], Response],
        _registered_method: bool = False,
    ) -> StreamCall[Request, Response]:
        """Part of the stub protocol."""
        return StreamCall(self._transport, method, request_serializer, response_deserializer, self._limit)

    def stream_unary(self, method: str, *_args: object, **_kwargs: object) -> Callable[[object], NoReturn]:
        """Part of the stub protocol; calling it raises, for no contract of ours streams requests."""
        return _unsupported(method)

    stream_stream = stream_unary


def _unsupported(method: str) -> Callable[[object], NoReturn]:
    def call(*_args: object, **_kwargs: object) -> NoReturn:
        raise TypeError(f"{method}: this channel does not stream requests")

    return call


@dataclass(frozen=True, slots=True)
class _Method(Generic[Request, Response]):
    transport: Transport
    path: str
    serialize: Callable[[Request], bytes]
    deserialize: Callable[[bytes], Response]
    limit: int

    async def start(
        self, request: Request, timeout: float | None, metadata: Metadata | None, compression: grpc.Compression | None
    ) -> TransportResponse:
        headers = [*_REQUEST_HEADERS]
        if timeout is not None:
            headers.append(("grpc-timeout", framing.format_timeout(timeout)))
        compress = compression is grpc.Compression.Gzip
        if compress:
            headers.append(("grpc-encoding", "gzip"))
        for key, value in metadata or ():
            headers.append((key, framing.encode_binary(value).decode() if isinstance(value, bytes) else value))
        body = framing.encode_frame(self.serialize(request), compress=compress)
        try:
            response = await self.transport.post(self.path, headers, body, timeout)
        except CallerGoneError:
            _fail(grpc.StatusCode.CANCELLED, "the caller has gone")
        status = response.headers.get("grpc-status")
        if response.status != 200 or status not in (None, "0"):
            await response.chunks.aclose()
            if status is not None:
                # Trailers-only: Envoy's own replies and errors before the first message come this way.
                _raise_unless_ok(response.headers, response.headers)
            code = _CODE_BY_HTTP_STATUS.get(response.status, grpc.StatusCode.UNKNOWN)
            _fail(code, f"the peer answered HTTP {response.status}")
        return response


@dataclass(frozen=True, slots=True)
class UnaryCall(_Method[Request, Response]):
    """What a stub's unary method is: call it, await the response message."""

    async def __call__(
        self,
        request: Request,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        compression: grpc.Compression | None = None,
    ) -> Response:
        """Make the call.

        Raises:
            grpc.aio.AioRpcError: any status but OK.
        """
        try:
            if _is_timed(timeout):
                return await self._exchange(request, timeout, metadata, compression)
            async with asyncio.timeout(timeout):
                return await self._exchange(request, timeout, metadata, compression)
        except TimeoutError:
            _fail(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")
        except ConnectionError as error:
            _fail(grpc.StatusCode.UNAVAILABLE, str(error) or "the connection failed")
        except ProtocolError as error:
            _fail(error.code, error.details)

    async def _exchange(
        self, request: Request, timeout: float | None, metadata: Metadata | None, compression: grpc.Compression | None
    ) -> Response:
        response = await self.start(request, timeout, metadata, compression)
        # Read here and not by the generator that streams are read by, which takes twice as long (ADR 0026).
        body, is_whole = b"", False
        try:
            async for chunk in response.chunks:
                body = body + chunk if body else chunk
                if len(body) > self.limit + framing.PREFIX_BYTES:
                    raise framing.too_large(self.limit)
            is_whole = True
        finally:
            if not is_whole:
                await response.chunks.aclose()
        _raise_unless_ok(response.trailers or response.headers, response.headers)
        encoding = response.headers.get("grpc-encoding", "identity")
        return self.deserialize(framing.decode_single(body, encoding.encode(), self.limit))


@dataclass(frozen=True, slots=True)
class StreamCall(_Method[Request, Response]):
    """What a stub's server-streaming method is: call it, iterate the response messages."""

    async def __call__(
        self,
        request: Request,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        compression: grpc.Compression | None = None,
    ) -> AsyncIterator[Response]:
        """Make the call and yield its messages as they come.

        Raises:
            grpc.aio.AioRpcError: any status but OK, after the messages that came before it.
        """
        try:
            async with asyncio.timeout(None if _is_timed(timeout) else timeout):
                response = await self.start(request, timeout, metadata, compression)
                encoding = response.headers.get("grpc-encoding", "identity").encode()
                async with aclosing(response.chunks) as chunks:
                    async for message in framing.decode_stream(chunks, encoding, self.limit):
                        yield self.deserialize(message)
        except TimeoutError:
            _fail(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")
        except ConnectionError as error:
            _fail(grpc.StatusCode.UNAVAILABLE, str(error) or "the connection failed")
        except ProtocolError as error:
            _fail(error.code, error.details)
        _raise_unless_ok(response.trailers or response.headers, response.headers)


def _is_timed(timeout: float | None) -> bool:
    """Whether the request's own timer ends a call that begins now, so that it needs none of its own."""
    if timeout is None:
        return True
    current = context.current()
    if current is None or current.timer is None:
        return False
    # To the millisecond, which is what the event loop's clock is read by.
    return asyncio.get_running_loop().time() + timeout >= current.timer - _CLOCK_SECONDS


def _raise_unless_ok(trailers: Mapping[str, str], headers: Mapping[str, str]) -> None:
    raw = trailers.get("grpc-status")
    if raw == "0":
        return
    if raw is None or not raw.isdigit():
        _fail(grpc.StatusCode.UNKNOWN, "the stream ended without a status")
    code = _CODES.get(int(raw), grpc.StatusCode.UNKNOWN)
    _fail(code, framing.decode_message(trailers.get("grpc-message", "")), trailers, headers)


def _fail(
    code: grpc.StatusCode,
    details: str,
    trailers: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> NoReturn:
    raise grpc.aio.AioRpcError(code, _metadata(headers), _metadata(trailers), details, None)


def _metadata(headers: Mapping[str, str] | None) -> grpc.aio.Metadata:
    items: list[tuple[str, str | bytes]] = []
    for key, value in (headers or {}).items():
        if key == STATUS_DETAILS or key.endswith("-bin"):
            try:
                items.append((key, framing.decode_binary(value)))
            except ValueError:
                continue
        elif key not in ("grpc-status", "grpc-message", "content-type"):
            items.append((key, value))
    return grpc.aio.Metadata(*items)
