"""HTTP on loopback for the console: whom it answers, and how much it takes and keeps of each connection.

It is for this machine's processes and its user's browser. A web page that is open in that browser may send requests, too:
`callers` refuses those before a body is read.

Nobody who connects, reads slowly or sends much takes more than a bounded part: of connections the one that has been quiet
longest makes room for a new one, an answer is sent piece by piece, and all bodies together have a bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

import h11

from devstack.console import callers

# Of one request's body. The exporters' batches have some 100 KiB.
MOST_BODY_BYTES = 4 * 1024 * 1024
# Of all bodies that are being read.
_MOST_HELD_BYTES = 32 * 1024 * 1024
MOST_CONNECTIONS = 256
# A connection may be kept without a request for so long, a request take so long to come, and an answer to be read.
_IDLE_SECONDS = 120.0
_REQUEST_SECONDS = 15.0
SEND_SECONDS = 15.0
_PIECE_BYTES = 32 * 1024
_MOST_PARAMETERS = 16


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks; names of headers in small letters, parameters as they are after decoding."""

    method: str
    path: str
    parameters: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered."""

    status: int
    body: bytes = b""
    media_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


class _RefusedError(Exception):
    """A request is answered so before it has been read whole."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Server:
    """The console's HTTP.

    Args:
        answer: what each request is answered; its exceptions are answered 500 and told.
        port: on 127.0.0.1.
        say: tells of what went wrong.
    """

    def __init__(self, answer: Callable[[Request], Awaitable[Answer]], port: int, say: Callable[[str], None]) -> None:
        self._answer = answer
        self._port = port
        self._say = say
        # Each connection, the one that has been quiet longest first.
        self._open: dict[asyncio.StreamWriter, None] = {}
        self._held_bytes = 0

    async def start(self) -> asyncio.Server:
        """Listen.

        Raises:
            OSError: somebody else does.
        """
        return await asyncio.start_server(self._serve, "127.0.0.1", self._port, backlog=MOST_CONNECTIONS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MOST_CONNECTIONS:
            next(iter(self._open)).transport.abort()
        self._open[writer] = None
        connection = h11.Connection(h11.SERVER)
        try:
            while await self._exchange(connection, reader, writer):
                pass
        except (h11.RemoteProtocolError, h11.LocalProtocolError, ConnectionError, TimeoutError):
            # Whoever sends what is no HTTP, goes away, sends nothing or does not read is told nothing.
            writer.transport.abort()
        finally:
            self._open.pop(writer, None)
            writer.close()

    async def _exchange(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """One request and its answer; whether another may follow on the connection."""
        body = bytearray()
        try:
            request = await self._read(connection, reader, body)
        except _RefusedError as refused:
            await _send(connection, writer, Answer(refused.status), with_body=True)
            return False
        finally:
            self._held_bytes -= len(body)
        if request is None:
            return False
        # Now it is the one that has been quiet shortest.
        if writer in self._open:
            self._open[writer] = self._open.pop(writer)
        try:
            answer = await self._answer(request)
        except Exception as error:
            self._say(f"{request.path} could not be answered: {type(error).__name__}: {error}")
            answer = Answer(500)
        await _send(connection, writer, answer, with_body=request.method != "HEAD")
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            return False
        connection.start_next_cycle()
        return True

    async def _read(self, connection: h11.Connection, reader: asyncio.StreamReader, body: bytearray) -> Request | None:
        """The next request; None when there is none any more.

        Raises:
            _RefusedError: nothing more of it needs to be read.
            TimeoutError, ConnectionError, h11.RemoteProtocolError: it did not come whole.
        """
        head: Request | None = None
        async with asyncio.timeout(_IDLE_SECONDS) as patience:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    received = await reader.read(65536)
                    if not body and head is None:
                        patience.reschedule(asyncio.get_running_loop().time() + _REQUEST_SECONDS)
                    connection.receive_data(received)
                elif isinstance(event, h11.Request):
                    head = _head(event)
                elif isinstance(event, h11.Data):
                    body += event.data
                    self._held_bytes += len(event.data)
                    if len(body) > MOST_BODY_BYTES:
                        raise _RefusedError(413)
                    if self._held_bytes > _MOST_HELD_BYTES:
                        raise _RefusedError(503)
                elif isinstance(event, h11.EndOfMessage) and head is not None:
                    return Request(head.method, head.path, head.parameters, head.headers, bytes(body))
                else:
                    return None


def _head(event: h11.Request) -> Request:
    """A request of which the head alone is known.

    Raises:
        _RefusedError: who sends it is not answered, or it cannot be read.
    """
    path, _, query = event.target.decode("latin-1").partition("?")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
    try:
        parameters = dict(parse_qsl(query, max_num_fields=_MOST_PARAMETERS))
    except ValueError:
        raise _RefusedError(400) from None
    request = Request(event.method.decode("latin-1"), path, parameters, headers)
    if (status := callers.refusal(request.method, request.path, headers)) is not None:
        raise _RefusedError(status)
    return request


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, answer: Answer, *, with_body: bool) -> None:
    """An answer, piece by piece: of one that reads slowly, no more than a piece or two waits here.

    Raises:
        TimeoutError, ConnectionError: it was not read.
    """
    headers = {"content-type": answer.media_type, "content-length": str(len(answer.body)), **answer.headers}
    async with asyncio.timeout(SEND_SECONDS):
        response = h11.Response(status_code=answer.status, headers=list(headers.items()))
        writer.write(connection.send(response) or b"")
        for begin in range(0, len(answer.body) if with_body else 0, _PIECE_BYTES):
            writer.write(connection.send(h11.Data(data=answer.body[begin : begin + _PIECE_BYTES])) or b"")
            await writer.drain()
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()
