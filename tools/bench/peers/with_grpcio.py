"""grpcio's asyncio server and client: `python with_grpcio.py serve PORT`, or `call PORT CALLS`, which prints their cost."""

from __future__ import annotations

import sys

import grpc
import uvloop
from echo import METHOD, PATH, SERVICE, TEXT, cost
from google.protobuf.wrappers_pb2 import StringValue


async def _say(request: StringValue, _context: object) -> StringValue:
    return StringValue(value=request.value)


async def serve(port: int) -> None:
    """Serve until the process ends."""
    handler = grpc.unary_unary_rpc_method_handler(
        _say, request_deserializer=StringValue.FromString, response_serializer=StringValue.SerializeToString
    )
    server = grpc.aio.server()
    server.add_registered_method_handlers(SERVICE, {METHOD: handler})
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def call(port: int, calls: int) -> None:
    """Call, and print microseconds of CPU for a call."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        say = channel.unary_unary(PATH, StringValue.SerializeToString, StringValue.FromString)
        request = StringValue(value=TEXT)
        print(await cost(lambda: say(request, timeout=5.0), calls))


if __name__ == "__main__":
    verb, *numbers = sys.argv[1:]
    uvloop.run(serve(int(numbers[0])) if verb == "serve" else call(int(numbers[0]), int(numbers[1])))
