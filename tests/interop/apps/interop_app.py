"""Hosted inside Envoy by the interoperation tests: our gRPC server, and our channel towards grpcio's server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
from chassis.grpc.server import GrpcApplication, status_metadata
from chassis.host import upstream_channel
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

SERVICE = "interop.v1.Echo"
SEEN: dict[str, int] = {"cancelled": 0}


async def echo(request: bytes, context: Any) -> bytes:
    """The request again; metadata `x-echo` and `x-echo-bin` come back as initial and trailing metadata."""
    metadata = dict(context.invocation_metadata())
    await context.send_initial_metadata((("x-initial", metadata.get("x-echo", "")),))
    trailing: list[tuple[str, str | bytes]] = [("x-trailing", metadata.get("x-echo", ""))]
    if "x-echo-bin" in metadata:
        trailing.append(("x-echo-bin", metadata["x-echo-bin"]))
    context.set_trailing_metadata(tuple(trailing))
    return request


async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """As many messages as the request says; `n!` aborts after them."""
    text = request.decode()
    for number in range(int(text.rstrip("!"))):
        yield str(number).encode() * 100
    if text.endswith("!"):
        await context.abort(grpc.StatusCode.DATA_LOSS, "lost after messages")


async def collect(requests: AsyncIterator[bytes], _context: Any) -> bytes:
    """All request messages in one."""
    return b",".join([message async for message in requests])


async def chat(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
    """Each request message again, as it comes."""
    async for message in requests:
        yield message.upper()


async def sleep(request: bytes, context: Any) -> bytes:
    """Sleep; the answer is the time that was left. Counts being cancelled."""
    left = context.time_remaining()
    try:
        await asyncio.sleep(float(request))
    except asyncio.CancelledError:
        SEEN["cancelled"] += 1
        raise
    return str(left).encode()


async def cancelled(_request: bytes, _context: Any) -> bytes:
    """How many sleeps were cancelled."""
    return str(SEEN["cancelled"]).encode()


async def fail(request: bytes, context: Any) -> bytes:
    """Fail in the way the request says."""
    if request == b"rich":
        status = Status(code=9, message="naïve 100% détails\n")
        status.details.add().Pack(ErrorInfo(reason="BECAUSE", domain="interop", metadata={"k": "v"}))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, status.message, status_metadata(status))
    if request == b"code":
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("set, not raised")
        return b""
    raise RuntimeError("a secret that must not leave")


def handlers() -> dict[str, Any]:
    """The same servicer for our server and for grpcio's."""
    return {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Collect": grpc.stream_unary_rpc_method_handler(collect),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
        "Cancelled": grpc.unary_unary_rpc_method_handler(cancelled),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
    }


def _identity(message: bytes) -> bytes:
    return message


server = GrpcApplication(message_limit_bytes=64 * 1024, compress_responses=True)
server.add_registered_method_handlers(
    SERVICE,
    {
        name: handler._replace(request_deserializer=_identity, response_serializer=_identity)
        for name, handler in handlers().items()
    },
)


async def _outward(scope: Any, send: Any) -> None:
    """/call/<method>/<argument>: call grpcio's server through our channel and answer what came of it as JSON."""
    _, _, method, argument, seconds = scope["path"].split("/")
    channel = upstream_channel("user")
    result: dict[str, Any] = {}
    try:
        if method == "Count":
            stub: Any = channel.unary_stream(f"/{SERVICE}/{method}", _identity, _identity)
            result["messages"] = 0
            async for _ in stub(argument.encode(), timeout=float(seconds)):
                result["messages"] += 1
        else:
            stub = channel.unary_unary(f"/{SERVICE}/{method}", _identity, _identity)
            size, _, compressed = argument.partition("g")
            body = b"a" * int(size) if method == "Echo" else argument.encode()
            answer = await stub(
                body,
                timeout=float(seconds),
                metadata=(("x-echo", "hello"), ("x-echo-bin", b"\x00\xff")),
                compression=grpc.Compression.Gzip if compressed else None,
            )
            result["bytes"] = len(answer)
    except grpc.aio.AioRpcError as error:
        result |= {"code": error.code().name, "details": error.details()}
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                info = ErrorInfo()
                Status.FromString(value).details[0].Unpack(info)
                result["reason"] = info.reason
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(result).encode()})


async def app(scope: Any, receive: Any, send: Any) -> None:
    """gRPC is served, /call/… calls out."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"].startswith("/call/"):
        await _outward(scope, send)
    else:
        await server(scope, receive, send)


async def ops(_scope: Any, _receive: Any, send: Any) -> None:
    """Ready as soon as it answers."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})
