"""Sends a request as its bytes are, with nothing checked: HTTP/1.1, HTTP/2 (in the clear and over TLS), HTTP/3."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import hpack
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StopSendingReceived, StreamReset

from fuzz.mutations import Shot

# Seconds to wait for an answer: what is not answered by then is given up, as clients do.
PATIENCE = 2.0
GONE = (OSError, ssl.SSLError, TimeoutError, asyncio.IncompleteReadError, hpack.HPACKError, QuicConnectionError)


@dataclass(frozen=True, slots=True)
class Target:
    """The edge's listeners."""

    port: int
    tls_port: int
    # Of the public certificate.
    authority: Path


# Sends some requests from an address; their statuses, None where there was no answer.
Sender = Callable[[Target, list[Shot], str], Awaitable[list[int | None]]]


async def http1(target: Target, shots: list[Shot], address: str) -> list[int | None]:
    """Each on a connection of its own."""
    return [await _http1(target.port, shot, address) for shot in shots]


async def _http1(port: int, shot: Shot, address: str) -> int | None:
    lines = [shot.method + b" " + shot.path + b" HTTP/1.1", *(b"Host: " + name for name in shot.authorities)]
    lines += [name + b": " + value for name, value in shot.headers]
    body = shot.body
    if body is not None:
        lines.append(b"transfer-encoding: chunked" if shot.trailers else b"content-length: %d" % len(body))
    if body and shot.trailers:
        trailers = b"".join(name + b": " + value + b"\r\n" for name, value in shot.trailers)
        body = b"%x\r\n" % len(body) + body + b"\r\n0\r\n" + trailers + b"\r\n"
    message = b"\r\n".join([*lines, b"", b""]) + (body or b"")
    if shot.ending == "half":
        message = message[: len(message) * 2 // 3]
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        writer.write(message)
        if shot.ending != "wait":
            await asyncio.sleep(0.005)
            return None
        line = await asyncio.wait_for(reader.readline(), PATIENCE)
        return int(line.split(b" ")[1]) if line.startswith(b"HTTP/1.") else None
    except GONE:
        return None
    finally:
        if writer is not None:
            writer.transport.abort()


async def h2c(target: Target, shots: list[Shot], address: str) -> list[int | None]:
    """One after the other on a connection in the clear, and on another when that has ended."""
    return await _one_by_one(shots, lambda: _http2(target.port, None, address))


async def h2(target: Target, shots: list[Shot], address: str) -> list[int | None]:
    """The same over TLS."""
    context = ssl.create_default_context(cafile=str(target.authority))
    context.set_alpn_protocols(["h2"])
    return await _one_by_one(shots, lambda: _http2(target.tls_port, context, address))


async def h3(target: Target, shots: list[Shot], _address: str, patience: float = PATIENCE) -> list[int | None]:
    """The same over QUIC, from 127.0.0.1."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="localhost")
    configuration.load_verify_locations(str(target.authority))
    return await _one_by_one(shots, lambda: _http3(target.tls_port, configuration), patience)


class Connection(Protocol):
    """Asks one thing after the other."""

    # Until the other side has ended it.
    usable: bool

    async def ask(self, shot: Shot) -> int | None:
        """The status, or None when there was no answer."""


async def _one_by_one(
    shots: list[Shot], opened: Callable[[], AbstractAsyncContextManager[Connection]], patience: float = PATIENCE
) -> list[int | None]:
    statuses: list[int | None] = []
    connection: Connection | None = None
    async with AsyncExitStack() as stack:
        for shot in shots:
            try:
                if connection is None or not connection.usable:
                    await stack.aclose()
                    connection = await stack.enter_async_context(opened())
                statuses.append(await asyncio.wait_for(connection.ask(shot), patience))
            except GONE:
                statuses.append(None)
                connection = None
    return statuses


def _fields(shot: Shot) -> list[tuple[bytes, bytes]]:
    pseudo = [(b":method", shot.method), (b":scheme", shot.scheme), (b":path", shot.path)]
    return [*pseudo, *((b":authority", name) for name in shot.authorities), *shot.headers]


class _Http2:
    """RFC 9113, with frames made by hand: a library would refuse to send most of what is sent here."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.usable = True
        self._reader = reader
        self._writer = writer
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self._stream = -1
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))

    @property
    def ended(self) -> bool:
        """Whether the other side has closed the connection."""
        return self._writer.is_closing()

    def write(self, frames: bytes) -> None:
        """As they are; to who has gone, nothing."""
        if not self.ended:
            self._writer.write(frames)

    async def ask(self, shot: Shot) -> int | None:
        self._stream += 2
        end = shot.body is None and shot.ending != "half"
        self._headers(_fields(shot), end=end)
        if shot.body is not None and shot.ending != "half":
            for start in range(0, max(1, len(shot.body)), 16384):
                last = start + 16384 >= len(shot.body) and not shot.trailers
                self.write(frame(0, int(last), self._stream, shot.body[start : start + 16384]))
            if shot.trailers:
                self._headers(list(shot.trailers), end=True)
        if shot.ending == "reset":
            self.write(frame(3, 0, self._stream, (8).to_bytes(4, "big")))
        if shot.ending != "wait":
            self.usable = shot.ending == "reset"
            return None
        return await self._status()

    def _headers(self, fields: list[tuple[bytes, bytes]], *, end: bool) -> None:
        block = self._encoder.encode([(name, value) for name, value in fields])
        kind, flags = 1, int(end)
        while True:
            part, block = block[:16384], block[16384:]
            self.write(frame(kind, flags | (0 if block else 4), self._stream, part))
            kind, flags = 9, 0
            if not block:
                return

    async def _status(self) -> int | None:
        status = None
        while True:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == 7:
                self.usable = False
                return None
            if kind == 1:
                fields = self._decoder.decode(payload, raw=True)
                if stream == self._stream and status is None:
                    status = int(dict(fields)[b":status"])
            if kind == 0 and payload:
                self.write(frame(8, 0, 0, len(payload).to_bytes(4, "big")))
                self.write(frame(8, 0, stream, len(payload).to_bytes(4, "big")))
            if stream == self._stream and (kind == 3 or (kind in (0, 1) and flags & 1)):
                return status


@asynccontextmanager
async def _http2(port: int, context: ssl.SSLContext | None, address: str) -> AsyncIterator[_Http2]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost" if context else None, local_addr=(address, 0)
    )
    try:
        yield _Http2(reader, writer)
    finally:
        writer.transport.abort()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113, section 4.1."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class _Http3(QuicConnectionProtocol):
    """RFC 9114; aioquic encodes whatever field it is given."""

    usable = True
    _answer: asyncio.Future[int | None] | None = None
    _http: H3Connection | None = None
    _stream = -1

    async def ask(self, shot: Shot) -> int | None:
        if self._http is None:
            self._http = H3Connection(self._quic)
        self._answer = asyncio.get_running_loop().create_future()
        self._stream = self._quic.get_next_available_stream_id()
        end = shot.body is None and shot.ending != "half"
        # The one thing that aioquic does not encode is a field without a name.
        self._http.send_headers(self._stream, [pair for pair in _fields(shot) if pair[0]], end_stream=end)
        if shot.body is not None and shot.ending != "half":
            self._http.send_data(self._stream, shot.body, end_stream=not shot.trailers)
            if shot.trailers:
                self._http.send_headers(self._stream, [pair for pair in shot.trailers if pair[0]], end_stream=True)
        self.transmit()
        if shot.ending == "reset":
            # What was written has left; a request is cancelled in both directions (RFC 9114, section 4.1.1).
            self._quic.reset_stream(self._stream, 0x10C)
            self._quic.stop_stream(self._stream, 0x10C)
            self.transmit()
        if shot.ending != "wait":
            self.usable = shot.ending == "reset"
            return None
        return await self._answer

    def quic_event_received(self, event: QuicEvent) -> None:
        answer = self._answer
        if isinstance(event, ConnectionTerminated):
            self.usable = False
        if answer is None or answer.done() or self._http is None:
            return
        if isinstance(event, ConnectionTerminated) or (
            isinstance(event, StreamReset | StopSendingReceived) and event.stream_id == self._stream
        ):
            answer.set_result(None)
            return
        for received in self._http.handle_event(event):
            if isinstance(received, HeadersReceived) and received.stream_id == self._stream and not answer.done():
                answer.set_result(int(dict(received.headers)[b":status"]))


@asynccontextmanager
async def _http3(port: int, configuration: QuicConfiguration) -> AsyncIterator[Connection]:
    async with connect("127.0.0.1", port, configuration=configuration, create_protocol=_Http3) as protocol:
        assert isinstance(protocol, _Http3)  # noqa: S101 - narrows what `create_protocol` returns
        yield protocol


async def resets(target: Target, _shots: list[Shot], address: str) -> list[int | None]:
    """Reads that are given up soon after they are sent (rapid reset), just below the bound at which the edge ends a connection."""
    blocks = [hpack.Encoder().encode(_fields(read), huffman=False) for read in _RESET]
    try:
        async with _http2(target.port, None, address) as connection:
            await connection.ask(Shot())
            loop = asyncio.get_running_loop()
            for stream in range(3, 163, 2):
                if connection.ended:
                    return [None] * (stream // 2)
                connection.write(frame(1, 5, stream, blocks[stream // 2 % len(blocks)]))
                reset = frame(3, 0, stream, (8).to_bytes(4, "big"))
                if after := _RESET_AFTER[stream // 2 % len(_RESET_AFTER)]:
                    loop.call_later(after, connection.write, reset)
                else:
                    connection.write(reset)
                await asyncio.sleep(0.002)
            await asyncio.sleep(max(_RESET_AFTER))
            return [None] * 80
    except GONE:
        return [None]


async def h3_resets(target: Target, _shots: list[Shot], _address: str) -> list[int | None]:
    """The same over QUIC, from 127.0.0.1, each as soon as it is sent."""
    return await h3(
        target, [replace(_RESET[number % len(_RESET)], ending="reset") for number in range(80)], "127.0.0.1"
    )


# Each operation has a limit of its own.
_RESET = [Shot(path=path) for path in (b"/v1/products?limit=1", b"/openapi.yaml", b"/.well-known/jwks.json")]
# Seconds: before anybody has looked at it, while Python does, while the service behind does.
_RESET_AFTER = (0.0, 0.001, 0.003, 0.01)
SENDERS: Mapping[str, Sender] = {
    "http/1.1": http1,
    "h2c": h2c,
    "h2": h2,
    "h3": h3,
    "resets": resets,
    "h3 resets": h3_resets,
}
