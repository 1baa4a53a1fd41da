"""Serves generated servicers as an ASGI application over HTTP/2 with trailers.

Pass a `GrpcApplication` where the generated `add_…Servicer_to_server` expects a server. Handlers get a context with
the part of `grpc.aio.ServicerContext` that servicers use, so the same servicer also runs on grpcio's own server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import NoReturn

import grpc
import structlog
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from starlette.types import Message as Event
from starlette.types import Receive, Scope, Send

from chassis.grpc import framing
from chassis.grpc.framing import ProtocolError
from chassis.grpc.methods import MethodHandler, Registered, Unary, method_handler
from chassis.presence import CallerGoneError, Presence

Metadata = Sequence[tuple[str, str | bytes]]
Lines = Sequence[tuple[bytes, bytes]]

DEFAULT_MESSAGE_LIMIT_BYTES = 1024 * 1024
STATUS_DETAILS = "grpc-status-details-bin"

_RESPONSE_HEADERS = [(b"content-type", framing.CONTENT_TYPE), (b"grpc-accept-encoding", b"identity,gzip")]
_START = {"type": "http.response.start", "status": 200, "trailers": True}
_OK_TRAILERS = [(b"grpc-status", b"0")]
# What is the protocol's and no metadata of the call.
_PROTOCOL_HEADERS = (b"content-type", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding")
_log = structlog.get_logger(__name__)


class AbortError(Exception):
    """Raised by `ServerContext.abort`; ends the call with the status set there."""


class ServerContext:
    """One call, as its handler sees it: the part of `grpc.aio.ServicerContext` that servicers use."""

    __slots__ = ("_code", "_details", "_headers", "_initial", "_lines", "_peer", "_trailing", "deadline")

    def __init__(
        self, lines: Lines, headers: Mapping[bytes, bytes], deadline: float | None, peer: tuple[str, int] | None
    ) -> None:
        self._lines = lines
        # The same by name.
        self._headers = headers
        # On the event loop's clock.
        self.deadline = deadline
        self._peer = peer
        self._initial: Metadata = ()
        self._trailing: Metadata = ()
        self._code = grpc.StatusCode.OK
        self._details = ""

    def invocation_metadata(self) -> Metadata:
        """The request's metadata, `-bin` values decoded."""
        return [_metadata_item(name, value) for name, value in self._lines if not _is_protocol(name)]

    def text(self, key: str) -> str | None:
        """The value of one key of the metadata; without reading all of it, which few calls need."""
        value = self._headers.get(key.encode())
        return None if value is None else value.decode("latin-1")

    def texts(self, key: str) -> list[str]:
        """All values of one key."""
        name = key.encode()
        if len(self._headers) == len(self._lines):
            # No name comes twice: nearly all calls.
            return [self._headers[name].decode("latin-1")] if name in self._headers else []
        return [value.decode("latin-1") for other, value in self._lines if other == name]

    def peer(self) -> str:
        """The address of the immediate peer."""
        return f"{self._peer[0]}:{self._peer[1]}" if self._peer else ""

    def time_remaining(self) -> float | None:
        """Seconds left before the caller's deadline, or None without one."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Metadata for the response headers; they leave with the first message."""
        self._initial = metadata

    def initial_metadata(self) -> Metadata:
        """What `send_initial_metadata` was given."""
        return self._initial

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Metadata to send after the last message."""
        self._trailing = metadata

    def trailing_metadata(self) -> Metadata:
        """What `set_trailing_metadata` was given."""
        return self._trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        """The status to end with when the handler returns."""
        self._code = code

    def set_details(self, details: str) -> None:
        """The message of that status."""
        self._details = details

    def code(self) -> grpc.StatusCode:
        """The status as set so far."""
        return self._code

    def details(self) -> str:
        """The message as set so far."""
        return self._details

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        """End the call with this status.

        Raises:
            AbortError: always.
        """
        self._code, self._details = code, details
        if trailing_metadata:
            self._trailing = trailing_metadata
        raise AbortError

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a `grpc.Status`, rich details included."""
        await self.abort(status.code, status.details, tuple(status.trailing_metadata))


class GrpcApplication:
    """An ASGI application made of generated servicers.

    Args:
        message_limit_bytes: the largest request message, once decompressed; RESOURCE_EXHAUSTED over it.
        compress_responses: gzip response messages over 1 KiB for callers that accept it.
    """

    def __init__(
        self, *, message_limit_bytes: int = DEFAULT_MESSAGE_LIMIT_BYTES, compress_responses: bool = False
    ) -> None:
        self._methods: dict[str, MethodHandler] = {}
        self._limit = message_limit_bytes
        self._compress = compress_responses

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Part of the registration protocol; the registered form, which always follows, has all we need."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Registered]) -> None:
        """Called by the generated `add_…Servicer_to_server`."""
        for name, handler in method_handlers.items():
            self._methods[f"/{service_name}/{name}"] = method_handler(handler)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call (ASGI 3, HTTP scope)."""
        if scope["type"] != "http":
            raise ValueError(f"a gRPC application serves HTTP only, not {scope['type']!r}")
        call = _Call(scope, receive, send, self._limit, compress=self._compress)
        try:
            if scope["method"] != "POST":
                await call.refuse_http(405, [(b"allow", b"POST")])
            elif not call.content_type.startswith(framing.CONTENT_TYPE):
                await call.refuse_http(415, [])
            elif (handler := self._methods.get(scope["path"])) is None:
                await call.finish(grpc.StatusCode.UNIMPLEMENTED, "unknown method", ())
            else:
                await call.run(handler)
        except CallerGoneError:
            return


class _Call:
    """The life of one call, from its first header to its trailers."""

    __slots__ = ("_compress", "_encoding", "_limit", "_receive", "_send", "_started", "content_type", "context")

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int, *, compress: bool) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._started = False
        lines = scope["headers"]
        headers: dict[bytes, bytes] = dict(lines)
        self.content_type = headers.get(b"content-type", b"")
        self._encoding = headers.get(b"grpc-encoding", b"identity")
        self._compress = compress and b"gzip" in headers.get(b"grpc-accept-encoding", b"")
        timeout = framing.parse_timeout(headers.get(b"grpc-timeout", b""))
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        self.context = ServerContext(lines, headers, deadline, scope.get("client"))

    async def run(self, handler: MethodHandler) -> None:
        """Run the handler under the caller's deadline and answer with its messages and status."""
        context = self.context
        try:
            with Presence(self._receive, context.deadline) as caller:
                if handler.unary_unary is not None:
                    await self._run_unary(handler, handler.unary_unary, caller)
                else:
                    await self._run_stream(handler, caller)
        except AbortError:
            await self.finish(context.code(), context.details(), context.trailing_metadata())
        except ProtocolError as error:
            await self.finish(error.code, error.details, ())
        except TimeoutError:
            await self.finish(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed", ())
        except CallerGoneError:
            raise
        except Exception:
            _log.exception("unexpected error in a gRPC handler")
            await self.finish(grpc.StatusCode.INTERNAL, "internal error", ())

    async def _run_unary(self, handler: MethodHandler, behavior: Unary, caller: Presence) -> None:
        """One message in, one out: nearly all calls, and so the one that is written for speed (ADR 0026)."""
        request = await self._request_message(handler.request_deserializer)
        caller.watch()
        context = self.context
        response = await behavior(request, context)
        if context.code() is not grpc.StatusCode.OK:
            await self._finish_ok()
            return
        frame = framing.encode_frame(handler.response_serializer(response), compress=self._compress)
        trailers = _ok_trailers(context.trailing_metadata())
        send = self._send
        self._started = True
        try:
            await send({**_START, "headers": self._response_headers()})
            await send({"type": "http.response.body", "body": frame, "more_body": False})
            await send({"type": "http.response.trailers", "headers": trailers, "more_trailers": False})
        except OSError as error:
            raise CallerGoneError from error

    async def _run_stream(self, handler: MethodHandler, caller: Presence) -> None:
        if handler.unary_stream is not None:
            request = await self._request_message(handler.request_deserializer)
            caller.watch()
            await self._send_messages(handler, handler.unary_stream(request, self.context))
        elif handler.stream_stream is not None:
            requests = self._request_messages(handler.request_deserializer)
            await self._send_messages(handler, handler.stream_stream(requests, self.context))
        elif handler.stream_unary is not None:
            requests = self._request_messages(handler.request_deserializer)
            response = await handler.stream_unary(requests, self.context)
            if self.context.code() is grpc.StatusCode.OK:
                await self._send_message(handler.response_serializer(response))
        await self._finish_ok()

    async def _send_messages(self, handler: MethodHandler, responses: AsyncGenerator[Message, None]) -> None:
        async with contextlib.aclosing(responses):
            async for response in responses:
                await self._send_message(handler.response_serializer(response))

    async def _finish_ok(self) -> None:
        context = self.context
        await self.finish(context.code(), context.details(), context.trailing_metadata())

    async def _request_message(self, deserialize: Callable[[bytes], Message]) -> Message:
        body = b""
        more = True
        while more:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise CallerGoneError
            chunk = event.get("body", b"")
            body = body + chunk if body else chunk
            if len(body) > self._limit + 5:
                raise framing.too_large(self._limit)
            more = event.get("more_body", False)
        return self._deserialize(deserialize, framing.decode_single(body, self._encoding, self._limit))

    async def _request_messages(self, deserialize: Callable[[bytes], Message]) -> AsyncIterator[Message]:
        async for message in framing.decode_stream(self._chunks(), self._encoding, self._limit):
            yield self._deserialize(deserialize, message)

    async def _chunks(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise CallerGoneError
            yield event.get("body", b"")
            more = event.get("more_body", False)

    @staticmethod
    def _deserialize(deserialize: Callable[[bytes], Message], message: bytes) -> Message:
        try:
            return deserialize(message)
        except Exception as error:
            # INTERNAL is what grpcio answers here as well.
            raise ProtocolError(grpc.StatusCode.INTERNAL, "the request message does not parse") from error

    async def _write(self, message: Event) -> None:
        try:
            await self._send(message)
        except OSError as error:
            # What the host's `send` raises when there is nobody to send to (ASGI 2.4).
            raise CallerGoneError from error

    async def _send_message(self, message: bytes) -> None:
        if not self._started:
            self._started = True
            await self._write({**_START, "headers": self._response_headers()})
        frame = framing.encode_frame(message, compress=self._compress)
        await self._write({"type": "http.response.body", "body": frame, "more_body": True})

    def _response_headers(self) -> list[tuple[bytes, bytes]]:
        headers, initial = _RESPONSE_HEADERS, self.context.initial_metadata()
        if self._compress:
            headers = [*headers, (b"grpc-encoding", b"gzip")]
        return [*headers, *_wire_metadata(initial)] if initial else headers

    async def finish(self, code: grpc.StatusCode, details: str, trailing: Metadata) -> None:
        """End with `code`: in trailers after messages, in the headers (trailers-only) when there were none."""
        trailers = [(b"grpc-status", b"%d" % code.value[0])]
        if details:
            trailers.append((b"grpc-message", framing.encode_message(details)))
        trailers += _wire_metadata(trailing)
        if self._started:
            await self._write({"type": "http.response.body", "body": b"", "more_body": False})
            await self._write({"type": "http.response.trailers", "headers": trailers, "more_trailers": False})
        else:
            headers = [*_RESPONSE_HEADERS, *_wire_metadata(self.context.initial_metadata()), *trailers]
            await self._write({"type": "http.response.start", "status": 200, "headers": headers})
            await self._write({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse_http(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Answer something that is not gRPC at all with a bare HTTP status."""
        await self._write({"type": "http.response.start", "status": status, "headers": headers})
        await self._write({"type": "http.response.body", "body": b"", "more_body": False})


def _is_protocol(name: bytes) -> bool:
    return name in _PROTOCOL_HEADERS or name.startswith(b":")


def _metadata_item(name: bytes, value: bytes) -> tuple[str, str | bytes]:
    key = name.decode("latin-1")
    if key.endswith("-bin"):
        with contextlib.suppress(ValueError):
            return key, framing.decode_binary(value.decode("latin-1"))
    return key, value.decode("latin-1")


def _wire_metadata(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    return [
        (key.encode(), framing.encode_binary(value) if isinstance(value, bytes) else value.encode())
        for key, value in metadata
    ]


def _ok_trailers(trailing: Metadata) -> list[tuple[bytes, bytes]]:
    return [*_OK_TRAILERS, *_wire_metadata(trailing)] if trailing else _OK_TRAILERS


def status_metadata(status: Status) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata that carries rich error details."""
    return ((STATUS_DETAILS, status.SerializeToString()),)
