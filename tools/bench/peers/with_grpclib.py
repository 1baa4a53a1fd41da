"""grpclib's server and client: `python with_grpclib.py serve PORT`, or `call PORT CALLS`, which prints their cost."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import uvloop
from echo import PATH, TEXT, cost
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.server import Server


class _Service:
    async def say(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(StringValue(value=request.value))

    def __mapping__(self) -> Mapping[str, Any]:
        return {PATH: Handler(self.say, Cardinality.UNARY_UNARY, StringValue, StringValue)}


async def serve(port: int) -> None:
    """Serve until the process ends."""
    await Server([_Service()]).start("127.0.0.1", port)
    await asyncio.Event().wait()


async def call(port: int, calls: int) -> None:
    """Call, and print microseconds of CPU for a call."""
    channel = Channel("127.0.0.1", port)
    say: Any = UnaryUnaryMethod(channel, PATH, StringValue, StringValue)
    request = StringValue(value=TEXT)
    try:
        print(await cost(lambda: say(request, timeout=5.0), calls))
    finally:
        channel.close()


if __name__ == "__main__":
    verb, *numbers = sys.argv[1:]
    uvloop.run(serve(int(numbers[0])) if verb == "serve" else call(int(numbers[0]), int(numbers[1])))
