"""NATS JetStream as the broker: one connection of a process, which comes back by itself, and publishing over it.

The chassis knows NATS here and in `nats_consumer`, and nobody else does. A process serves without a broker as well: it is
connected by a worker, what is published meanwhile is refused at once, and the readiness probe tells it as a detail.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import lru_cache
from pathlib import Path

import msgspec
import structlog
from nats.aio.client import Client
from nats.errors import BadHeaderError, MaxPayloadError
from nats.errors import Error as NatsError
from nats.js.client import JetStreamContext

from chassis.cancellation import heed_cancellation
from chassis.certificate_files import client_context
from chassis.config import EventSettings
from chassis.events import envelope, limits, subjects
from chassis.events.causes import caused_by, describe
from chassis.events.event import Event
from chassis.events.publisher import BrokerUnavailable, NotTogether
from chassis.ids import uuid7
from chassis.metrics.families import Reading
from chassis.observe import Work, observe
from chassis.tracing import conventions

# Until the broker has said that an event is stored.
TIMEOUT_SECONDS = 5.0
_CONNECT_SECONDS = 2
_RECONNECT_SECONDS = 0.25
# Without a connection for so long, the client is replaced by a new one.
GIVE_UP_SECONDS = 5.0
# A broker that answers no ping for twice this is gone.
_PING_SECONDS = 5
# Events that wait for the broker's word at once; more are refused.
_MOST_WAITING = 1024
# What may wait to be written to a connection.
_MAX_PENDING_BYTES = 4 * 1024 * 1024
# Stored once by this header, however often it is published (for the stream's window).
MESSAGE_ID = "Nats-Msg-Id"
# Messages that are stored as one (docs.nats.io, "Atomic batch publish"): which batch, the how manieth of it, and that it is the
# last. The broker forgets a batch without a last one after ten seconds.
_BATCH, _PLACE, _LAST = "Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit"
# Written to the connection without letting others have the event loop.
_AT_A_STRETCH = 32

_CONNECTED = Reading("backend_broker_connected", "1 while there is a connection to the broker of events")
_WAITING = Reading("backend_broker_waiting", "Events that wait until the broker has said that they are stored")

# At the end of each connection asyncio remarks upon how the client has begun TLS (nats.aio.transport, `connect_tls`).
logging.getLogger("asyncio").addFilter(lambda record: "eof_received() has no effect" not in str(record.msg))
_log = structlog.get_logger(__name__)


class _Refusal(msgspec.Struct, frozen=True):
    description: str = ""


class _Answer(msgspec.Struct, frozen=True):
    error: _Refusal | None = None


class _Client(Client):
    def __init__(self, certificates: Path) -> None:
        super().__init__()
        self._certificates = certificates

    @property
    def ssl_context(self) -> ssl.SSLContext:
        # Read for each connection: certificates are replaced while we serve.
        return client_context(self._certificates)


class Nats:
    """A process's connection to the broker.

    Args:
        url: of the servers, separated by commas: tls://HOST:PORT.
        certificates: the directory of our certificate; a certificate that is replaced counts from the next connection on.
        name: our identity, below whose inbox we are answered.
        timeout: seconds until the broker has said that an event is stored.
    """

    def __init__(self, url: str, certificates: Path, name: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self._servers = url.split(",")
        self._certificates = certificates
        self._name = name
        self._timeout = timeout
        self._client: _Client | None = None
        self._waiting = 0
        # Why there is no connection.
        self._why = "not connected yet"
        _CONNECTED.read(lambda: self.is_connected)
        _WAITING.read(lambda: self._waiting)

    @classmethod
    def configured(cls, name: str, settings: EventSettings) -> Nats:
        """The one that a service's settings describe."""
        return cls(settings.nats_url, settings.nats_certificates, name)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client is not None and self._client.is_connected

    async def check(self) -> None:
        """Raise unless there is a connection; for the details of readiness.

        Raises:
            BrokerUnavailable: there is none.
        """
        self.connected()

    def connected(self) -> Client:
        """The connection that there is.

        Raises:
            BrokerUnavailable: there is none now.
        """
        if self._client is None or not self._client.is_connected:
            raise BrokerUnavailable(f"the broker cannot be reached: {self._why}")
        return self._client

    async def run(self) -> None:
        """Be connected until cancelled: a worker."""
        while True:
            closed = asyncio.Event()
            client = _Client(self._certificates)
            connecting = asyncio.create_task(self._connect(client, closed))
            try:
                self._client = client
                # Lost connections come back by themselves. One that the server has refused for good is begun anew, and one with
                # which the client does not come to an end: it may lose the task that reconnects, or wait for ever for the end of
                # a connection that has ended, and says nothing of it.
                await _until_given_up(client, closed)
                _log.info("the connection to the broker is begun anew", why=self._why)
            finally:
                self._client = None
                connecting.cancel()
                await _at_most(_CONNECT_SECONDS, connecting)
                await _at_most(_CONNECT_SECONDS, client.close())
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _connect(self, client: Client, closed: asyncio.Event) -> None:
        async def on_error(error: Exception) -> None:
            self._why = str(error) or type(error).__name__
            if "permissions violation" in self._why.lower():
                _log.error("the broker refuses what this service's row does not say", why=self._why)

        async def on_loss() -> None:
            _log.warning("the connection to the broker was lost", why=self._why)

        async def on_return() -> None:
            _log.info("connected to the broker again")

        async def on_end() -> None:
            closed.set()

        try:
            await client.connect(
                self._servers,
                name=self._name,
                inbox_prefix=subjects.inbox(self._name),
                error_cb=on_error,
                disconnected_cb=on_loss,
                reconnected_cb=on_return,
                closed_cb=on_end,
                connect_timeout=_CONNECT_SECONDS,
                # The client's own choice is 2 s, and to give up after 60 attempts.
                reconnect_time_wait=_RECONNECT_SECONDS,  # type: ignore[arg-type]  # it sleeps for so long, and says int
                max_reconnect_attempts=-1,
                ping_interval=_PING_SECONDS,
                pending_size=_MAX_PENDING_BYTES,
                tls_handshake_first=True,
                tls=client_context(self._certificates),
            )
        except Exception as error:
            # For instance a certificate that cannot be read. It is tried again with a client of its own.
            self._why = str(error) or type(error).__name__
            _log.warning("the broker cannot be connected to", why=self._why, exc_info=error)
        else:
            _log.info("connected to the broker")

    async def publish(self, event: Event) -> None:
        """See `Publisher`."""
        with observe(_publication(event.type), caused_by(event)) as seen:
            describe(seen.span, event)
            headers = _headers(event)
            if size(event.data, headers) > limits.MAX_EVENT_BYTES:
                raise MaxPayloadError
            await self.store(subjects.of_type(event.type), event.data, headers)

    async def publish_together(self, events: Sequence[Event]) -> None:
        """See `Publisher`."""
        client = self.connected()
        batch = uuid7().hex
        messages = [
            (subjects.of_type(event.type), event.data, _headers(event) | {_BATCH: batch, _PLACE: str(place)})
            for place, event in enumerate(events, 1)
        ]
        messages[-1][2][_LAST] = "1"
        if any(size(data, headers) > limits.MAX_EVENT_BYTES for _, data, headers in messages):
            raise NotTogether("one of them is larger than an event may be")
        with ExitStack() as publications:
            for event in events:
                seen = publications.enter_context(observe(_publication(event.type), caused_by(event)))
                describe(seen.span, event)
            try:
                for number, (subject, data, headers) in enumerate(messages[:-1], 1):
                    await client.publish(subject, data, headers=headers)
                    if number % _AT_A_STRETCH == 0:
                        await asyncio.sleep(0)
                subject, data, headers = messages[-1]
                answer = await client.request(subject, data, self._timeout, headers=headers)
                heed_cancellation()
            except (NatsError, OSError, TimeoutError) as error:
                raise BrokerUnavailable(str(error) or type(error).__name__) from error
            refusal = msgspec.json.decode(answer.data, type=_Answer).error
            if refusal is not None:
                raise NotTogether(refusal.description)

    async def store(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        """Publish a message, and return once the broker has stored it.

        Raises:
            BrokerUnavailable: it has not said so.
            MaxPayloadError, BadHeaderError: it never will, for it takes no such message.
        """
        client = self.connected()
        if self._waiting >= _MOST_WAITING:
            raise BrokerUnavailable("too many events wait for the broker")
        if size(data, headers) > client.max_payload:
            # The client looks at the data alone, and the broker would end the connection, which is everybody's.
            raise MaxPayloadError
        self._waiting += 1
        try:
            await JetStreamContext(client).publish(subject, data, timeout=self._timeout, headers=headers)
            heed_cancellation()
        except BadHeaderError:
            raise
        except (NatsError, OSError, TimeoutError) as error:
            raise BrokerUnavailable(str(error) or type(error).__name__) from error
        finally:
            self._waiting -= 1


@lru_cache(maxsize=256)
def _publication(event_type: str) -> Work:
    return Work("publish", event_type, span=conventions.publish(subjects.of_type(event_type)))


async def _until_given_up(client: Client, closed: asyncio.Event) -> None:
    """Until the client has closed the connection, or has not had one for GIVE_UP_SECONDS."""
    clock = asyncio.get_running_loop().time
    last = clock()
    while not closed.is_set() and clock() < last + GIVE_UP_SECONDS:
        with suppress(TimeoutError):
            async with asyncio.timeout(_RECONNECT_SECONDS):
                await closed.wait()
        if client.is_connected:
            last = clock()


async def _at_most(seconds: float, work: Awaitable[None]) -> None:
    """Wait for what the client does, whatever comes of it, and leave it alone after so long: it may not let itself be cancelled."""
    task = asyncio.ensure_future(work)
    _, late = await asyncio.wait({task}, timeout=seconds)
    if late:
        task.cancel()
    elif not task.cancelled() and (error := task.exception()) is not None:
        _log.info("a connection to the broker has ended", why=str(error) or type(error).__name__)


def _headers(event: Event) -> dict[str, str]:
    return envelope.headers(event) | {MESSAGE_ID: str(event.id)}


def size(data: bytes, headers: dict[str, str]) -> int:
    """Of a message, as the broker counts it: a first line, a line for each header, and an empty one."""
    lines = sum(len(name) + len(value.encode()) + len(": \r\n") for name, value in headers.items())
    return len("NATS/1.0\r\n") + lines + len("\r\n") + len(data)


@asynccontextmanager
async def connection(url: str, certificates: Path, name: str) -> AsyncIterator[Client]:
    """A connection for a command, which is there or is not.

    Raises:
        BrokerUnavailable: it cannot be had.
    """
    client = _Client(certificates)

    async def ignore(_error: Exception) -> None:
        return

    try:
        await client.connect(
            url.split(","),
            name=name,
            inbox_prefix=subjects.inbox(name),
            allow_reconnect=False,
            max_reconnect_attempts=0,
            connect_timeout=_CONNECT_SECONDS,
            # A connection that hears nothing more, for instance because of a message that the client cannot read, ends.
            ping_interval=_PING_SECONDS,
            error_cb=ignore,
            tls_handshake_first=True,
            tls=client_context(certificates),
        )
    except (NatsError, OSError, TimeoutError) as error:
        raise BrokerUnavailable(str(error) or type(error).__name__) from error
    try:
        yield client
    finally:
        await _at_most(_CONNECT_SECONDS, client.close())
