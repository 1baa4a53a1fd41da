"""Calls a `GrpcApplication` in the same process, without sockets: for tests of servicers and of their policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.types import Message as Event

from chassis.grpc.channel import Channel, TransportResponse
from chassis.grpc.server import GrpcApplication


def in_process_channel(application: GrpcApplication) -> Channel:
    """A channel whose calls run the application as a task of the same event loop."""
    return Channel(_InProcessTransport(application))


class _InProcessTransport:
    def __init__(self, application: GrpcApplication) -> None:
        self._application = application

    async def post(
        self, path: str, headers: list[tuple[str, str]], body: bytes, timeout: float | None
    ) -> TransportResponse:
        del timeout  # The server keeps the deadline of the grpc-timeout header, the channel its own.
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": [(name.encode(), value.encode()) for name, value in headers],
        }
        requests = [{"type": "http.request", "body": body, "more_body": False}]
        sent: asyncio.Queue[Event] = asyncio.Queue()

        async def receive() -> Event:
            if requests:
                return requests.pop()
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        task = asyncio.create_task(self._application(scope, receive, sent.put))
        start = await sent.get()
        trailers: dict[str, str] = {}
        chunks = _chunks(sent, task, trailers, expects_trailers=start.get("trailers", False))
        return TransportResponse(start["status"], _decoded(start["headers"]), chunks, trailers)


async def _chunks(
    sent: asyncio.Queue[Event],
    task: asyncio.Task[None],
    trailers: dict[str, str],
    *,
    expects_trailers: bool,
) -> AsyncGenerator[bytes, None]:
    try:
        more = True
        while more:
            event = await sent.get()
            more = event.get("more_body", False)
            if event["body"]:
                yield event["body"]
        if expects_trailers:
            trailers.update(_decoded((await sent.get())["headers"]))
    finally:
        task.cancel()


def _decoded(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}
