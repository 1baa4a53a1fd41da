"""Ways to call the processes of a running stack from inside its network, rightly and wrongly."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import grpc
import h2.config
import h2.connection
import h2.events
import httpx
import psutil
import pyqwest
from chassis.certificate_files import client_context
from chassis.grpc import framing
from chassis.grpc.channel import Channel, TransportResponse
from chassis.grpc.peer import Peer
from contract_runtime.http_client import ApiError
from devstack.layout import Layout
from devstack.options import Options
from mesh.site import Site

from conftest import People, Platform, free_port_offset, http_client
from devstack import proxies, services

Stub = TypeVar("Stub")


@dataclass(frozen=True)
class Answer:
    """What came back: the HTTP status, then headers and trailers together; no status when there was no answer."""

    status: int | None
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def grpc_status(self) -> str | None:
        return self.headers.get("grpc-status")


def identity(directory: Path) -> ssl.SSLContext:
    """A client with the certificate in `directory`, which looks at no server name (there are SPIFFE ids instead)."""
    has_certificate = (directory / "tls.crt").exists()
    context = (
        client_context(directory) if has_certificate else ssl.create_default_context(cafile=str(directory / "ca.crt"))
    )
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    return context


async def call(
    port: int,
    path: str,
    context: ssl.SSLContext | None,
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    body: bytes = framing.encode_frame(b""),
) -> Answer:
    """One HTTP/2 request; when it is a POST, with a gRPC message as its body."""
    try:
        async with asyncio.timeout(10):
            return await _call(port, path, context, method, headers or {}, body)
    except (OSError, ssl.SSLError, TimeoutError):
        return Answer(None, {})


async def _call(
    port: int, path: str, context: ssl.SSLContext | None, method: str, extra: Mapping[str, str], sent: bytes
) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        headers = [(":method", method), (":path", path), (":scheme", "https"), (":authority", "mesh")]
        if method == "POST":
            headers += [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "5S")]
        connection.send_headers(1, headers + list(extra.items()), end_stream=method != "POST")
        if method == "POST":
            connection.send_data(1, sent, end_stream=True)
        writer.write(connection.data_to_send())
        found: dict[str, str] = {}
        body = b""
        while True:
            data = await reader.read(65536)
            if not data:
                return Answer(int(found[":status"]) if ":status" in found else None, found, body)
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    found.update(dict(event.headers))  # type: ignore[arg-type]
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    return Answer(int(found[":status"]), found, body)
                elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                    return Answer(int(found[":status"]) if ":status" in found else None, found, body)
            writer.write(connection.data_to_send())
    finally:
        await close(writer)


class _Transport:
    """One HTTP/2 connection for each call of a stub."""

    def __init__(self, port: int, context: ssl.SSLContext, token: str | None) -> None:
        self._port = port
        self._context = context
        self._token = token

    async def post(
        self, path: str, headers: list[tuple[str, str]], body: bytes, timeout: float | None
    ) -> TransportResponse:
        del timeout  # `call` has one
        given = {name: value for name, value in headers if name not in ("content-type", "te", "grpc-timeout")}
        if self._token:
            given["authorization"] = f"Bearer {self._token}"
        answer = await call(self._port, path, self._context, headers=given, body=body)
        if answer.status is None:
            raise ConnectionError(f"port {self._port} does not answer")

        async def chunks() -> AsyncGenerator[bytes, None]:
            yield answer.body

        return TransportResponse(answer.status, answer.headers if not answer.body else {}, chunks(), answer.headers)


def stub(
    make: Callable[[grpc.aio.Channel], Stub],
    platform: Platform,
    service: str,
    *,
    who: str = "bff",
    token: str | None = None,
) -> Stub:
    """The generated stub of a service, as the process `who` calls it: over mutual TLS, for the user of an access token.

    Its calls raise `chassis.errors.ServiceError`, as those of the services do.
    """
    transport = _Transport(platform.layout.port(service), identity(platform.layout.certificates / who), token)
    return Peer(Channel(transport)).stub(make)


async def close(writer: asyncio.StreamWriter) -> None:
    """At once, whatever the other side does."""
    writer.transport.abort()
    with suppress(OSError, ssl.SSLError):
        await writer.wait_closed()


@contextmanager
def another(
    platform: Platform,
    process: str,
    options: Options,
    where: Site | None = None,
    application: Path | None = None,
    output: Path | None = None,
    *,
    becomes_ready: bool = True,
) -> Iterator[Layout]:
    """One more process of the stack, rendered with other options and on ports of its own (the layout says which).

    `application`: the module (of `app` and `ops`) that it hosts instead of the service's own. `output`: where it logs to.
    `becomes_ready`: whether it can be expected to; without, it is waited for only until it listens.
    """
    own = Layout(platform.layout.data_dir, free_port_offset())
    config = proxies.render_one(platform.layout, options, process, own, where)
    service = process.partition("-")[0]
    path = {}
    if application is not None:
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace(f"{service}.main:", f"{application.stem}:"), encoding="utf-8")
        path = {"PYTHONPATH": str(application.parent)}
    log = output or platform.layout.logs / f"{config.stem}.log"
    with log.open("wb") as lines:
        launched = subprocess.Popen(
            [sys.executable, "-m", "chassis.launch", str(config)],
            env={**os.environ, **path, **services.environment(service, platform.layout, platform.secrets, options)},
            cwd=platform.layout.data_dir,
            stdout=lines,
            stderr=lines,
            # As the supervisor has it.
            umask=0o077,
        )
    try:
        port = own.port(f"{service}_ops")
        give_up = time.monotonic() + 30
        while True:
            with suppress(httpx.HTTPError, OSError):
                if not becomes_ready:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                if httpx.get(f"http://127.0.0.1:{port}/healthz/ready").status_code == 200:
                    break
            assert launched.poll() is None, log
            assert time.monotonic() < give_up, log
            time.sleep(0.05)
        yield own
    finally:
        launched.terminate()
        launched.wait(30)
        if output is None:
            log.unlink()
        config.unlink()


@contextmanager
def edge(
    platform: Platform, options: Options | None = None, *without: str, becomes_ready: bool = True
) -> Iterator[str]:
    """The public URL of one more edge, with other options or without some policies."""
    chosen = replace(options or Options(), without=without)
    with another(platform, "edge", chosen, becomes_ready=becomes_ready) as own:
        yield f"http://127.0.0.1:{own.port('public')}"


def from_address(address: str, url: str) -> httpx.AsyncClient:
    """A client that calls from this address."""
    return httpx.AsyncClient(base_url=url, timeout=30, transport=httpx.AsyncHTTPTransport(local_address=address))


async def metrics(url: str, path: str = "/metrics/envoy") -> dict[str, float]:
    """Envoy's own counters at an ops endpoint, or at /metrics the application's, by name with labels."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{url}{path}")).text
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def requests_at(platform: Platform, process: str) -> float:
    """How many requests have reached a process's traffic listener."""
    found = await metrics(platform.status["endpoints"][f"{process}_ops"])
    return found['envoy_http_downstream_rq_completed{envoy_http_conn_manager_prefix="ingress"}']


async def reached_python(platform: Platform, responses: Iterable[httpx.Response]) -> int:
    """How many of the requests that were answered so are in the BFF's log."""
    # Envoy writes its access log once a second.
    await asyncio.sleep(2.5)
    log = (platform.layout.logs / "bff.log").read_text(encoding="utf-8")
    return sum(response.headers["x-request-id"] in log for response in responses)


async def connection_is_served(port: int, address: str) -> bool:
    """Whether the edge at a port answers on a new connection from an address."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        writer.write(b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n")
        with suppress(ConnectionError):
            return (await reader.read(12)).startswith(b"HTTP/1.1 404")
        return False
    finally:
        await close(writer)


@dataclass(frozen=True)
class Held:
    """A connection that is kept; without a stream when it was refused at once."""

    stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None

    @property
    def is_open(self) -> bool:
        """Whether the other side has not ended it."""
        if self.stream is None:
            return False
        reader, writer = self.stream
        return not (reader.at_eof() or reader.exception() or writer.is_closing())

    async def close(self) -> None:
        """At once."""
        if self.stream is not None:
            await close(self.stream[1])


async def hold(port: int, address: str, message: bytes = b"", context: ssl.SSLContext | None = None) -> Held:
    """A connection from an address, which says this and no more."""
    name = "localhost" if context else None
    try:
        stream = await asyncio.open_connection(
            "127.0.0.1", port, local_addr=(address, 0), ssl=context, server_hostname=name
        )
        stream[1].write(message)
        await stream[1].drain()
    except (OSError, ssl.SSLError):
        return Held(None)
    return Held(stream)


def trusting(platform: Platform) -> ssl.SSLContext:
    """Of the public HTTPS listener."""
    return ssl.create_default_context(cafile=str(platform.layout.certificates / "public" / "ca.crt"))


async def over_http3(platform: Platform, port: int) -> int | None:
    """The status of a read over HTTP/3, or None when nobody speaks it."""
    trust = (platform.layout.certificates / "public" / "ca.crt").read_bytes()
    async with pyqwest.HTTPTransport(tls_ca_cert=trust, http_version=pyqwest.HTTPVersion.HTTP3) as transport:
        request = pyqwest.Request("GET", f"https://localhost:{port}/v1/products?limit=1")
        try:
            answer = await asyncio.wait_for(transport.execute(request), 3)
        except (TimeoutError, ConnectionError, pyqwest.ReadError, pyqwest.WriteError):
            return None
        assert answer.http_version == pyqwest.HTTPVersion.HTTP3
        assert json.loads(b"".join([chunk async for chunk in answer.content]))["items"]
        return answer.status


def frame(kind: int, flags: int, stream: int | bytes, payload: bytes) -> bytes:
    """RFC 9113, section 4.1."""
    identifier = stream if isinstance(stream, bytes) else stream.to_bytes(4, "big")
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + identifier + payload


async def until_ready(stack: Platform, seconds: float = 30) -> None:
    """Until the whole stack serves a request that needs all of it."""
    async with asyncio.timeout(seconds), http_client(stack.url) as http:
        while True:
            try:
                client = await People(http, stack).log_in(stack.account("customer"))
                await client.list_orders(limit=1)
            except (ApiError, httpx.HTTPError):
                await asyncio.sleep(0.2)
            else:
                return


class paused:  # noqa: N801
    """The process is stopped (SIGSTOP): its sockets stay open and nothing answers."""

    def __init__(self, pid: int) -> None:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        self.pids = [process.pid for process in processes]

    def __enter__(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)
