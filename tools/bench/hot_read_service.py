"""One service on a host and a Valkey that cost next to nothing, and what its Python takes for a hot read.

    python tools/bench/hot_read_service.py bff|order

Reads a number of requests from each line of its standard input and writes the microseconds of CPU that one took. The
host's part in them is taken off: what the same requests cost with an application that does nothing.

What stands in for the host does what pyvoy does, in the same order and on the same event loop: a task for each request, a
future for each answer of another service. The bytes are those of a real read.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import os
import sys
import tempfile
import time
import types
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import msgspec
import uvloop
from contracts.common.v1.money_pb2 import Money
from contracts.order.v1 import order_pb2
from contracts.user.v1 import session_pb2, user_pb2
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.timestamp_pb2 import Timestamp
from pyqwest import Headers, Response

_AT_ONCE = 8
USER, SESSION = "01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b21", "01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b22"
ORDER, PRODUCT = "01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b23", "01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b24"
REQUEST_ID = "01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b25"
ISSUER, AUDIENCE = "https://backend.local", "backend-api"

Application = Callable[[Any, Any, Any], Awaitable[None]]
Scope = MutableMapping[str, Any]


def frame(message: bytes) -> bytes:
    """A gRPC message on the wire."""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def order() -> bytes:
    """The order that is read."""
    price, moment = Money(amount_minor=1999, currency="EUR"), Timestamp(seconds=1_764_000_000, nanos=123_456_000)
    items = [
        order_pb2.OrderItem(product_id=PRODUCT, name=f"Product {n}", quantity=1, unit_price=price, line_total=price)
        for n in range(3)
    ]
    return order_pb2.Order(
        id=ORDER, user_id=USER, status=order_pb2.ORDER_STATUS_PAID, items=items,
        total=Money(amount_minor=5997, currency="EUR"), version=2, created_at=moment, updated_at=moment,
    ).SerializeToString()  # fmt: skip


def records() -> tuple[bytes, bytes]:
    """The session of the read's caller, and their record as it is cached."""
    now = int(time.time() * 1000)
    session = session_pb2.SessionRecord(
        id=SESSION, user_id=USER, credential_version=1, created_at_ms=now, last_seen_at_ms=now + 3_600_000,
        user_agent="bench", address="127.0.0.1",
    )  # fmt: skip
    user = user_pb2.User(
        id=USER, email="bench@example.com", display_name="Bench", status=user_pb2.USER_STATUS_ACTIVE,
        roles=["customer"], version=1, credential_version=1,
    )  # fmt: skip
    return session.SerializeToString(), b"1:" + user.SerializeToString()


def bulk(value: bytes) -> bytes:
    """A RESP2 string."""
    return b"$%d\r\n%s\r\n" % (len(value), value)


class Valkey(asyncio.Transport):
    """The server's end of the connection: answers reads, and whatever else with OK."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._soon, self._protocol = loop.call_soon, protocol
        self._records = b"*2\r\n" + b"".join(map(bulk, records()))
        self._order = bulk(b"2:" + order())

    def write(self, data: Any) -> None:
        """A command."""
        if b"MGET" in data:
            reply = self._records
        elif b"GET" in data:
            reply = self._order
        else:
            reply = b"+OK\r\n"
        self._soon(self._protocol.data_received, reply)

    def abort(self) -> None:
        """Nothing to be closed."""


class Loop(uvloop.Loop):
    """An event loop whose Unix sockets lead to that Valkey."""

    async def create_unix_connection(self, protocol_factory: Any, *_: Any, **__: Any) -> Any:
        """See asyncio."""
        protocol = protocol_factory()
        transport = Valkey(self, protocol)
        protocol.connection_made(transport)
        return transport, protocol


class HTTPTransport:
    """What pyvoy calls so: answers with the order."""

    _BODY = frame(order())
    _HEADERS = (
        ("content-type", "application/grpc"), ("grpc-accept-encoding", "identity,gzip"),
        ("date", "Wed, 26 Nov 2026 17:00:00 GMT"), ("server", "envoy"), ("x-envoy-upstream-service-time", "1"),
    )  # fmt: skip

    def __init__(self, _cluster: str, *, timeout: float | None = None) -> None:
        """See pyvoy."""

    def execute(self, request: Any) -> asyncio.Future[Response]:
        """See pyvoy."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Response] = loop.create_future()
        loop.call_soon(self._answer, answer, request)
        return answer

    def _answer(self, answer: asyncio.Future[Response], request: Any) -> None:
        for _ in request.headers.items():
            pass
        if not (request.method and request.url and request.content):
            raise ValueError("not a call")
        headers, trailers = Headers(self._HEADERS), Headers([("grpc-status", "0")])
        answer.set_result(Response(status=200, headers=headers, content=self._BODY, trailers=trailers))


def install_host() -> None:
    """Make it importable as pyvoy's own module is within Envoy."""
    module = types.ModuleType("pyvoy.asgi.httpclient")
    module.HTTPTransport = HTTPTransport  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module


def access_token(directory: Path) -> str:
    """A token, and the key set that verifies it, in jwks.json."""
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    published = {"keys": [{**jwk, "kid": "bench", "use": "sig", "alg": "ES256"}]}
    (directory / "jwks.json").write_bytes(msgspec.json.encode(published))
    now = int(datetime.now(UTC).timestamp())
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": USER, "sid": SESSION, "roles": ["customer"], "iat": now,
        "exp": now + 3600, "jti": REQUEST_ID,
    }  # fmt: skip
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": "bench"})


def environment(directory: Path) -> dict[str, str]:
    """What the services are configured with."""
    return {
        "JWKS_FILE": str(directory / "jwks.json"), "ACCESS_TOKEN_SECONDS": "3600", "TOKEN_ISSUER": ISSUER,
        "TOKEN_AUDIENCE": AUDIENCE, "DATABASE_URL": "postgresql://nobody@nowhere/none", "CURSOR_SECRET": "x" * 32,
        "VALKEY_URL": "unix:///none", "CACHE_URL": "unix:///none", "NATS_URL": "tls://nowhere:4222",
        "NATS_CERTIFICATES": str(directory),
    }  # fmt: skip


def bff(token: str) -> tuple[Application, Scope, bytes]:
    """The BFF, a read as the edge passes it on, and its body."""
    from bff.settings import Settings
    from chassis.config import load
    from chassis.grpc.peer import Peer
    from chassis.host import upstream_channel
    from chassis.valkey import PipelinedClient

    client = PipelinedClient("unix:///none")

    def peer(name: str) -> Peer:
        return Peer(upstream_channel(name))

    # Commits before the table of services name each peer.
    build = importlib.import_module("bff.main").build
    peers = [peer] if "peers" in inspect.signature(build).parameters else [peer("user"), peer("order")]
    application = build(load(Settings), client, *peers)
    return application, scope("GET", f"/v1/orders/{ORDER}", bff_headers(token)), b""


def bff_headers(token: str) -> list[tuple[bytes, bytes]]:
    """Of a read, as the edge passes it on."""
    return [
        (b"host", b"127.0.0.1:8080"), (b"user-agent", b"wrk"), (b"accept", b"*/*"),
        (b"authorization", f"Bearer {token}".encode()), (b"x-forwarded-for", b"127.0.0.1"),
        (b"x-forwarded-proto", b"http"), (b"x-client-address", b"127.0.0.1"),
        (b"x-client-origin", b"http://127.0.0.1:8080"), (b"x-request-id", REQUEST_ID.encode()),
        (b"x-envoy-expected-rq-timeout-ms", b"2000"),
    ]  # fmt: skip


def order_service(token: str) -> tuple[Application, Scope, bytes]:
    """The Order service, the BFF's call, and its message."""
    from chassis.config import load
    from chassis.database import Database
    from chassis.grpc.server import GrpcApplication
    from chassis.valkey import PipelinedClient
    from order.main import build
    from order.settings import Settings

    settings = load(Settings)
    application = GrpcApplication()
    build(settings, Database.configured(settings, service="order"), PipelinedClient("unix:///none")).add_to(application)
    headers = [
        (b"host", b"order"), (b"content-type", b"application/grpc"), (b"te", b"trailers"),
        (b"grpc-accept-encoding", b"identity,gzip"), (b"grpc-timeout", b"1998m"), (b"x-request-id", REQUEST_ID.encode()),
        (b"authorization", f"Bearer {token}".encode()), (b"x-caller-roles", b"customer"),
        (b"x-client-address", b"127.0.0.1"),
        (b"x-forwarded-proto", b"https"), (b"x-envoy-expected-rq-timeout-ms", b"2250"),
    ]  # fmt: skip
    request = order_pb2.GetOrderRequest(id=ORDER).SerializeToString()
    return application, scope("POST", "/order.v1.OrderService/GetOrder", headers), frame(request)


def scope(method: str, path: str, headers: list[tuple[bytes, bytes]]) -> Scope:
    """An ASGI scope as pyvoy makes it."""
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.5"}, "http_version": "2", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": headers, "client": ("127.0.0.1", 40000), "server": ("127.0.0.1", 8080),
        "extensions": {"http.response.trailers": {}},
    }  # fmt: skip


class Host:
    """Gives requests to an application as pyvoy does: each a task, some at once."""

    def __init__(self, application: Application, request: Scope, body: bytes) -> None:
        self.application = application
        self._request = request
        self._event = {"type": "http.request", "body": body, "more_body": False}
        self.statuses: set[object] = set()

    async def serve(self, requests: int) -> float:
        """Seconds of CPU that so many of them take."""
        began = time.thread_time()
        for _ in range(requests // _AT_ONCE):
            await asyncio.gather(*(self._task() for _ in range(_AT_ONCE)))
        return time.thread_time() - began

    def _task(self) -> asyncio.Task[None]:
        made: Any = self.application(dict(self._request), self._receive, self._send)
        return asyncio.get_running_loop().create_task(made)

    async def _receive(self) -> dict[str, Any]:
        return dict(self._event)

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if "headers" in message:
            self.statuses.add(message.get("status") or dict(message["headers"])[b"grpc-status"])


async def nothing(_scope: Any, receive: Any, send: Any) -> None:
    """An application that only takes its request and answers it."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def run(service: str, directory: Path) -> None:
    """Serve as many requests as each line asks for."""
    from chassis.logging import configure

    configure(service, environment="test", version="bench")
    token = access_token(directory)
    os.environ.update(environment(directory))
    application, request, body = {"bff": bff, "order": order_service}[service](token)
    host, bare = Host(application, request, body), Host(nothing, request, body)
    profiler: AbstractContextManager[Any] = nullcontext()
    await host.serve(_AT_ONCE)
    if host.statuses - {200, b"0"}:
        raise SystemExit(f"not all answers were a success: {host.statuses}")
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    with profiler:
        for line in sys.stdin:
            requests = int(line)
            used = await host.serve(requests) - await bare.serve(requests)
            print(used / requests * 1e6, flush=True)


def main() -> None:
    """Until standard input ends."""
    install_host()
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(run(sys.argv[1], Path(directory)))


if __name__ == "__main__":
    main()
