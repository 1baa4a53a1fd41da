"""A Valkey client for the path of requests: one connection, replies in order, commands of concurrent requests together.

redis-py takes a connection out of a pool for each command, which costs more CPU than the command, and its import is a
quarter of a service's start. `tools/bench/valkey_clients.py` measures both; ADR 0006 has the numbers.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from chassis import password_files
from chassis.metrics.families import Reading
from chassis.observe import Work, observe
from chassis.tracing import conventions

T = TypeVar("T")

# A session check is on every request's path: better a clear failure soon than a queue.
TIMEOUT_SECONDS = 1.0
# The error reply of a server at its maxmemory.
_OUT_OF_MEMORY = "out of memory"
# How the error reply of a server begins that cannot write its file: its disk is full, say.
_CANNOT_PERSIST = "MISCONF "
# For copies of what the database knows: twice this is what a hung cache may cost a request (read, and offer).
CACHE_TIMEOUT_SECONDS = 0.25
# Commands waiting for their replies; more are refused at once.
_MAX_PENDING = 4096
_GET, _MGET, _SET, _SCRIPT = (
    Work("valkey", command, span=conventions.valkey(command)) for command in ("GET", "MGET", "SET", "EVALSHA")
)
_WAITING = Reading("backend_valkey_waiting", "Commands that wait for their replies")
_CONNECTED = Reading("backend_valkey_connected", "1 while there is a connection to Valkey")


class ValkeyError(Exception):
    """Valkey did not do what it was asked."""


class ValkeyConnectionError(ValkeyError):
    """There is no connection, or no answer in time: the command may have been carried out."""


class ResponseError(ValkeyError):
    """Valkey answered with an error, which is the message."""


class Script(Generic[T]):
    """A Lua script, which Valkey runs as one atomic step; sent by its hash. Its type argument is what it returns."""

    __slots__ = ("digest", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class PipelinedClient:
    """A few commands over one pipelined connection, made on first use and again after it was lost.

    A command whose reply is lost with the connection fails; it may have been carried out.

    Args:
        url: redis://, rediss:// (TLS, the server's certificate verified) or unix:///path?db=0.
        timeout: seconds to wait for the connection, and for each reply.
        password_file: of the user's password, when the URL has none.

    Raises:
        ValueError: another scheme.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT_SECONDS, password_file: Path | None = None) -> None:
        parts = urlsplit(url)
        self._password_file = password_file
        self._timeout = timeout
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError(f"the scheme of a Valkey URL must be redis, rediss or unix, not {parts.scheme!r}")
        self._socket = parts.path if parts.scheme == "unix" else None
        self._tls = ssl.create_default_context() if parts.scheme == "rediss" else None
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 6379
        self._credentials = [unquote(p) for p in (parts.username, parts.password) if p]
        query = parse_qs(parts.query)
        self._database = query.get("db", ["0"])[0] if self._socket else parts.path.strip("/") or "0"
        self._pipeline: _Pipeline | None = None
        self._connecting: asyncio.Task[_Pipeline] | None = None
        _WAITING.read(lambda: 0 if self._pipeline is None else self._pipeline.waiting)
        _CONNECTED.read(lambda: self._pipeline is not None and not self._pipeline.lost)

    async def get(self, key: str) -> bytes | None:
        """The value of a key.

        Raises:
            ValkeyError: no connection, no answer in time, or an error reply.
        """
        with observe(_GET):
            return cast("bytes | None", await self._send(b"GET", key))

    async def mget(self, *keys: str) -> list[bytes | None]:
        """The values of several keys.

        Raises:
            ValkeyError: as `get`.
        """
        with observe(_MGET):
            return cast("list[bytes | None]", await self._send(b"MGET", *keys))

    async def set(self, key: str, value: bytes, seconds: int) -> None:
        """Keep a value for some seconds.

        Raises:
            ValkeyError: as `get`.
        """
        with observe(_SET):
            await self._send(b"SET", key, value, b"EX", seconds)

    async def ping(self) -> None:
        """Raise unless Valkey answers; whether it takes writes, `accepts_writes` says.

        Raises:
            ValkeyError: as `get`.
        """
        try:
            await self._send(b"PING")
        except ResponseError as error:
            # A server that cannot write its file refuses PING with what would have to be in it. It goes on reading.
            if not str(error).startswith(_CANNOT_PERSIST):
                raise

    def accepts_writes(self, prefix: str) -> Callable[[], Awaitable[None]]:
        """A check that raises when Valkey takes no writes, for one: `out of memory`.

        Args:
            prefix: of keys that this user may write; one of them is kept for a second.
        """

        async def check() -> None:
            try:
                await self.set(f"{prefix}write-check", b"1", 1)
            except ResponseError as error:
                raise ValkeyConnectionError(_OUT_OF_MEMORY if str(error).startswith("OOM ") else str(error)) from error

        return check

    async def evaluate(self, script: Script[T], keys: Sequence[str], arguments: Sequence[bytes | str | int]) -> T:
        """What a script returns.

        Raises:
            ValkeyError: as `get`.
        """
        with observe(_SCRIPT):
            try:
                reply = await self._send(b"EVALSHA", script.digest, len(keys), *keys, *arguments)
            except ResponseError as error:
                if not str(error).startswith("NOSCRIPT"):
                    raise
                # Unknown after a restart of Valkey; known from now on.
                reply = await self._send(b"EVAL", script.source, len(keys), *keys, *arguments)
            return cast("T", reply)

    async def renew(self) -> None:
        """Replace the connection, for instance when the password has changed; the old one ends with its last reply.

        Raises:
            ValkeyError: there is no new one; the old one stays.
        """
        await self._connect()

    async def close(self) -> None:
        """Close the connection, also one that is being made; commands without a reply fail."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._pipeline is not None:
            await self._pipeline.close()

    def _send(self, *command: bytes | str | int) -> Awaitable[object]:
        """Send a command, at once when there is a connection; awaits its reply."""
        pipeline = self._pipeline
        if pipeline is None or pipeline.lost:
            return self._connect_and_send(command)
        return pipeline.send(*command)

    async def _connect_and_send(self, command: tuple[bytes | str | int, ...]) -> object:
        return await (await self._connected()).send(*command)

    async def _connected(self) -> _Pipeline:
        # Whoever comes meanwhile waits for the same attempt; its being cancelled is nobody else's concern.
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(_is_known)
        made = await asyncio.shield(self._connecting)
        # Which `renew` may have replaced already.
        return self._pipeline or made

    def _protocol(self) -> _Pipeline:
        return _Pipeline(self._timeout)

    async def _connect(self) -> _Pipeline:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout):
                if self._socket:
                    _, pipeline = await loop.create_unix_connection(self._protocol, self._socket)
                else:
                    _, pipeline = await loop.create_connection(self._protocol, self._host, self._port, ssl=self._tls)
                await self._introduce(pipeline)
        except (OSError, TimeoutError) as error:
            raise ValkeyConnectionError(f"Valkey cannot be reached: {error}") from error
        previous, self._pipeline = self._pipeline, pipeline
        if previous is not None:
            previous.retire()
        return pipeline

    async def _introduce(self, pipeline: _Pipeline) -> None:
        try:
            await self._authenticate(pipeline)
            if self._database != "0":
                await pipeline.send(b"SELECT", self._database)
        except BaseException:
            # Refused, or given up: nobody else knows of this connection.
            await pipeline.close()
            raise

    async def _authenticate(self, pipeline: _Pipeline) -> None:
        if self._password_file is None:
            if self._credentials:
                await pipeline.send(b"AUTH", *self._credentials)
            return
        refusal: ResponseError | None = None
        for password in password_files.passwords(self._password_file):
            try:
                await pipeline.send(b"AUTH", *self._credentials, password)
            except ResponseError as error:
                refusal = error
            else:
                return
        raise ValkeyConnectionError(f"Valkey refuses the password: {refusal or 'there is none'}")


def _is_known(connecting: asyncio.Task[_Pipeline]) -> None:
    """Those who wait for it are told how it ended. When all of them have gone, nobody is, and that is no error."""
    if not connecting.cancelled():
        connecting.exception()


class _Pipeline(asyncio.Protocol):
    """Commands out, replies in, in order (RESP2)."""

    def __init__(self, timeout: float) -> None:
        self.lost = False
        self._timeout = timeout
        self._reader = hiredis.Reader()
        self._pending: deque[asyncio.Future[object]] = deque()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._closed = asyncio.Event()
        self._retired = False

    @property
    def waiting(self) -> int:
        """Commands whose replies are due."""
        return len(self._pending)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports have the interface but not the base class.
        self._transport = cast("asyncio.Transport", transport)

    def send(self, *command: bytes | str | int) -> Awaitable[object]:
        """Send a command; awaits its reply."""
        if self.lost or self._transport is None:
            raise ValkeyConnectionError("the connection to Valkey was lost")
        if len(self._pending) >= _MAX_PENDING:
            raise ValkeyConnectionError("too many commands are waiting for Valkey")
        future: asyncio.Future[object] = self._loop.create_future()
        self._pending.append(future)
        self._transport.write(hiredis.pack_command(cast("tuple[bytes]", command)))
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._timeout, self._check, future)
        return future

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            future = self._pending.popleft()
            if future.done():
                continue
            if isinstance(reply, Exception):
                future.set_exception(ResponseError(str(reply)))
            else:
                future.set_result(reply)
        if self._retired and not self._pending:
            self._fail("replaced")

    def retire(self) -> None:
        """End with the last reply that is due; nobody sends any more."""
        self._retired = True
        if not self._pending:
            self._fail("replaced")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._fail(f"the connection to Valkey was lost: {exc or 'closed'}")
        self._closed.set()

    async def close(self) -> None:
        """Give up, and wait until the socket is closed."""
        self._fail("closed")
        if self._transport is not None:
            await self._closed.wait()

    def _check(self, oldest: asyncio.Future[object]) -> None:
        # One timer for the connection instead of one a command: it looks whether the reply that was the next one
        # due when it was set has come.
        self._watchdog = None
        if not self._pending:
            return
        if self._pending[0] is oldest:
            self._fail("Valkey does not answer")
        else:
            self._watchdog = self._loop.call_later(self._timeout, self._check, self._pending[0])

    def _fail(self, why: str) -> None:
        self.lost = True
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._pending:
            future = self._pending.popleft()
            if not future.done():
                future.set_exception(ValkeyConnectionError(why))
