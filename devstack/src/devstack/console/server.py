"""HTTP on loopback: takes spans by OTLP/HTTP, and says that it is ready.

It is for this machine's processes. A web page that is open in a browser here may send requests, too: one that names another
host (DNS rebinding) is refused, and what is no protobuf is, which a page cannot send without being asked about it first.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import zlib
from collections.abc import Callable

import h11
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from devstack.console.spans import SpanWriter

# Of one request, before and after it is unpacked. The exporters' batches have some 100 KiB.
MOST_BODY_BYTES = 4 * 1024 * 1024
_MOST_BYTES = 16 * 1024 * 1024
_MOST_CONNECTIONS = 128
_IDLE_SECONDS = 120.0
_HOSTS = ("127.0.0.1", "localhost")
_PROTOBUF = b"application/x-protobuf"


class TooLargeError(Exception):
    """A body over the bound."""


class Server:
    """The console's HTTP.

    Args:
        writer: keeps spans.
        port: on 127.0.0.1.
        say: tells of what went wrong.
    """

    def __init__(self, writer: SpanWriter, port: int, say: Callable[[str], None]) -> None:
        self._writer = writer
        self._port = port
        self._say = say
        self._connections = 0

    async def start(self) -> asyncio.Server:
        """Listen.

        Raises:
            OSError: somebody else does.
        """
        return await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= _MOST_CONNECTIONS:
            writer.close()
            return
        self._connections += 1
        connection = h11.Connection(h11.SERVER)
        try:
            while await self._exchange(connection, reader, writer):
                pass
        except (h11.RemoteProtocolError, ConnectionError, TimeoutError):
            # Whoever sends what is no HTTP, goes away or sends nothing is told nothing.
            pass
        finally:
            self._connections -= 1
            writer.close()

    async def _exchange(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """One request and its answer; whether another may follow on the connection."""
        request: h11.Request | None = None
        body = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                async with asyncio.timeout(_IDLE_SECONDS):
                    connection.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MOST_BODY_BYTES:
                    await _send(connection, writer, 413, b"")
                    return False
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                break
            else:
                return False
        status, answer = self._answer(request, bytes(body))
        await _send(connection, writer, status, answer)
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            return False
        connection.start_next_cycle()
        return True

    def _answer(self, request: h11.Request, body: bytes) -> tuple[int, bytes]:
        headers = dict(request.headers)
        if headers.get(b"host", b"").decode("latin-1").partition(":")[0] not in _HOSTS:
            return 403, b""
        match request.method, request.target:
            case b"GET", b"/healthz/ready":
                return 200, b""
            case b"POST", b"/v1/traces" if headers.get(b"content-type") == _PROTOBUF:
                return self._take(body, is_packed=headers.get(b"content-encoding") == b"gzip")
            case b"POST", b"/v1/traces":
                return 415, b""
            case _:
                return 404, b""

    def _take(self, body: bytes, *, is_packed: bool) -> tuple[int, bytes]:
        try:
            unpacked = _unpacked(body) if is_packed else body
            ExportTraceServiceRequest.FromString(unpacked)
        except TooLargeError:
            return 413, b""
        except (DecodeError, OSError, EOFError, zlib.error):
            return 400, b""
        try:
            self._writer.add(unpacked)
        except OSError as error:
            self._say(f"spans cannot be kept: {error}")
            return 507, b""
        return 200, ExportTraceServiceResponse().SerializeToString()


def _unpacked(body: bytes) -> bytes:
    """What gzip made small.

    Raises:
        TooLargeError: it is more than anybody of ours sends.
        OSError, EOFError, zlib.error: it is no gzip.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
        unpacked = file.read(_MOST_BYTES + 1)
    if len(unpacked) > _MOST_BYTES:
        raise TooLargeError
    return unpacked


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    headers = [("content-type", "application/x-protobuf"), ("content-length", str(len(body)))]
    for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
        writer.write(connection.send(event) or b"")
    await writer.drain()
