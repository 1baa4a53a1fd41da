"""What implements a method, as the code that protoc generates registers it, with the types that methods of ours have.

grpcio's own type of it is of blocking methods, with everything optional.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

import grpc
from google.protobuf.message import Message

if TYPE_CHECKING:
    from chassis.grpc.server import ServerContext

# As grpcio declares it.
Registered: TypeAlias = "grpc.RpcMethodHandler[Message, Message]"
# What handlers are given: ours, or grpcio's own on its server.
Context: TypeAlias = "ServerContext | grpc.aio.ServicerContext[Message, Message]"
Unary = Callable[[Message, Context], Awaitable[Message]]
Streaming = Callable[[Message, Context], AsyncGenerator[Message, None]]


class Server(Protocol):
    """Where servicers are registered: `GrpcApplication`, or `grpc.aio.Server`."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler], /) -> None:
        """All methods of a service in one."""
        ...

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Registered], /) -> None:
        """The methods of a service, by name."""
        ...


class MethodHandler(Protocol):
    """`grpc.RpcMethodHandler` of a coroutine method. One of the four is there."""

    request_deserializer: Callable[[bytes], Message]
    response_serializer: Callable[[Message], bytes]
    unary_unary: Unary | None
    unary_stream: Streaming | None
    stream_unary: Callable[[AsyncIterator[Message], Context], Awaitable[Message]] | None
    stream_stream: Callable[[AsyncIterator[Message], Context], AsyncGenerator[Message, None]] | None


def method_handler(registered: Registered) -> MethodHandler:
    """The same, as what it is."""
    return cast("MethodHandler", registered)
