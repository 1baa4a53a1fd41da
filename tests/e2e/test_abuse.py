"""What a hostile or broken client sends, byte by byte: it is refused, nothing answers 5xx, and the next client is served."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import suppress

import h2.config
import h2.connection
import pytest
from contract_runtime.operation import Operation
from contracts.bff.v1.client import BackendClient
from contracts.bff.v1.operations import OPERATIONS
from contracts.permissions import ROLE_PERMISSIONS

from conftest import People, Platform

GET = b"GET /v1/products?limit=1 HTTP/1.1\r\nhost: x\r\n"
POST = b"POST /v1/auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


async def send(platform: Platform, *chunks: bytes, pause: float = 0.0, timeout: float = 15) -> bytes:
    """Write the chunks on a new connection and read until it is closed or has been answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", platform.layout.port("public"))
    answer = b""
    try:
        async with asyncio.timeout(timeout):
            for chunk in chunks:
                with suppress(ConnectionError):
                    writer.write(chunk)
                    await writer.drain()
                await asyncio.sleep(pause)
            with suppress(ConnectionError):
                while b"\r\n\r\n" not in answer or not _complete(answer):
                    data = await reader.read(65536)
                    if not data:
                        break
                    answer += data
    finally:
        writer.close()
    return answer


def _complete(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return b"transfer-encoding" not in head.lower()


def status_of(answer: bytes) -> int:
    """The status, or 0 when the connection was closed without an answer."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


@pytest.fixture(autouse=True)
async def the_next_client_is_served(people: People) -> AsyncIterator[None]:
    yield
    assert (await BackendClient(people.http).list_products(limit=1)).status == 200


MESSAGES = {
    "not http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "empty request line": b"\r\n\r\n\r\n",
    "null byte in the path": b"GET /v1/pro\0ducts HTTP/1.1\r\nhost: x\r\n\r\n",
    "null byte in a header": GET + b"x-a: a\0b\r\n\r\n",
    "wrong utf-8 in the path": b"GET /v1/products/\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
    "escaped wrong utf-8": b"GET /v1/products/%ff%fe HTTP/1.1\r\nhost: x\r\n\r\n",
    "a bare escape": b"GET /v1/products/% HTTP/1.1\r\nhost: x\r\n\r\n",
    "wrong utf-8 in the query": b"GET /v1/products?q=%ff%fe&limit=%zz HTTP/1.1\r\nhost: x\r\n\r\n",
    "wrong utf-8 in a header": GET + b"x-client: \xff\xfe\r\nauthorization: Bearer \xff\r\n\r\n",
    "obsolete line folding": GET + b"x-a: a\r\n b\r\n\r\n",
    "bare line feed": b"GET /v1/products HTTP/1.1\nhost: x\n\n",
    "space before a colon": GET + b"x-a : b\r\n\r\n",
    "no host": b"GET /v1/products HTTP/1.1\r\n\r\n",
    "http 1.0": b"GET /v1/products HTTP/1.0\r\n\r\n",
    "http 9.9": b"GET /v1/products HTTP/9.9\r\nhost: x\r\n\r\n",
    "content-length and transfer-encoding": POST + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two content-lengths": POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "a negative content-length": POST + b"content-length: -1\r\n\r\n{}",
    "a huge content-length": POST + b"content-length: 99999999999999999999999\r\n\r\n{}",
    "a bad chunk size": POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "an unknown transfer-encoding": POST + b"transfer-encoding: gzip\r\n\r\n{}",
    "an underscore header": GET + b"x_caller_id: admin\r\n\r\n",
    "a thousand headers": GET + b"".join(b"x-%d: y\r\n" % i for i in range(1000)) + b"\r\n",
    "one endless header": GET + b"x-a: " + b"a" * 100_000 + b"\r\n\r\n",
    "an endless path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "an upgrade": GET + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "connect": b"CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example\r\n\r\n",
    "absolute form": b"GET http://evil.example/v1/products HTTP/1.1\r\nhost: x\r\n\r\n",
    "an expectation": POST + b"content-length: 2\r\nexpect: 200-maybe\r\n\r\n{}",
    "compressed body": POST + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b",
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES.keys())
async def test_a_broken_message_is_no_server_error(platform: Platform, message: bytes) -> None:
    status = status_of(await send(platform, message))
    assert status < 500, status


@pytest.mark.parametrize("host", [b"", b"host: x\r\n"])
async def test_http_1_0_is_served(platform: Platform, host: bytes) -> None:
    """RFC 9112, 2.3 and 3.2: it need not name a host, and is answered by who speaks a later version of the same."""
    answer = await send(platform, b"GET /v1/products?limit=1 HTTP/1.0\r\n" + host + b"\r\n")
    assert answer[5:12] in (b"1.0 200", b"1.1 200"), answer
    assert b'"items":' in answer


@pytest.mark.parametrize("sent_ahead", [b"", b"x" * 5_000])
async def test_a_tunnel_is_refused_without_waiting_for_what_follows(platform: Platform, sent_ahead: bytes) -> None:
    """RFC 9110, 9.3.6: what follows CONNECT is no body, and has no end."""
    message = b"CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\n\r\n"
    # A request that is not whole is answered after ten seconds (`slow_senders`).
    answer = await send(platform, message + sent_ahead, timeout=5)
    assert status_of(answer) == 405
    assert b"\r\nallow: \r\n" in answer
    assert b'"urn:backend:problem:method-not-allowed"' in answer


BODIES = {
    "deep nesting": b'{"email":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "a huge number": b'{"email": ' + b"9" * 60_000 + b"}",
    "a huge exponent": b'{"email": 1e999999999}',
    "a lone surrogate": b'{"email": "\\ud800@example.com", "password": "x"}',
    "a null character": b'{"email": "a\\u0000@example.com", "password": "x\\u0000"}',
    "many keys": b"{" + b",".join(b'"k%d":1' % i for i in range(5000)) + b"}",
    "one key many times": b"{" + b",".join(b'"email":"a@b.c"' for _ in range(3000)) + b"}",
    "byte order mark": b"\xef\xbb\xbf{}",
    "utf-16": '{"email": "a@b.c"}'.encode("utf-16"),
    "not a number": b'{"email": NaN}',
    "a trailing comma": b'{"email": "a@b.c",}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_a_hostile_body_is_the_clients_error(people: People, body: bytes) -> None:
    response = await people.http.post("/v1/auth/login", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 401, 413, 422), response.text
    assert response.headers["content-type"] == "application/problem+json"


LARGEST = 64_000
HOSTILE_BODIES = {
    "a key like a decoder's message": b'{"x - at `$' + b"[" * LARGEST + b'": 1}',
    "a value of the same": b'{"email": "' + b" - at `$[" * (LARGEST // 9) + b'"}',
    "a number": b'{"quantity": ' + b"9" * LARGEST + b"}",
    "a member many times": b"{" + b",".join([b'"reason":"a"'] * (LARGEST // 14)) + b"}",
    "nesting": b'{"items": ' + b"[" * LARGEST,
}
HOSTILE_HEADERS = {
    "accept": "a/b;q=0.1," * 2500,
    "cookie": 'refresh_token="' + "\\" * 25_000 + '"',
    "if-match": '"1",' * 6000,
    "if-none-match": 'W/"a,' * 5000,
    "idempotency-key": "k" * 25_000,
    "content-type": "application/json;" + " ;" * 12_000,
}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
async def test_the_largest_of_anything_is_read_at_once(people: People, operation: Operation) -> None:
    """Five seconds are a thousand times what a linear reading takes, and a tenth of what a quadratic one took."""
    role = next(r for r, granted in ROLE_PERMISSIONS.items() if operation.permission in (None, *granted))
    headers = {"content-type": "application/json"}
    if operation.permission:
        headers["authorization"] = f"Bearer {(await people.role(role)).access_token}"
    url = operation.path.replace("{", "").replace("}", "")
    for identifier in ("order_id", "product_id", "user_id", "session_id"):
        url = url.replace(identifier, "01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b21")
    sent = [(body, headers) for body in HOSTILE_BODIES.values()] if operation.body else []
    sent += [(b"{}" if operation.body else b"", {**headers, name: value}) for name, value in HOSTILE_HEADERS.items()]
    for body, with_headers in sent:
        async with asyncio.timeout(5):
            response = await people.http.request(operation.method, url, content=body, headers=with_headers)
        assert response.status_code < 500, response.text


async def test_what_envoy_itself_refuses_is_a_problem_too(platform: Platform) -> None:
    for message, status in ((GET + b"x_a: b\r\n\r\n", 400), (MESSAGES["one endless header"], 431)):
        answer = await send(platform, message)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert status_of(answer) == status
        assert b"content-type: application/problem+json" in head
        problem = json.loads(body)
        assert problem["status"] == status
        assert isinstance(problem["request_id"], str)


async def test_a_slow_header_is_cut_off(platform: Platform) -> None:
    chunks = [b"G", b"E", b"T", b" ", b"/", b"v", b"1", b"/", b"x", b" ", b"H", b"T"]
    status = status_of(await send(platform, *chunks, pause=0.6, timeout=20))
    assert status in (0, 408)


async def test_a_slow_body_is_cut_off(platform: Platform) -> None:
    chunks = [POST + b"content-length: 1000\r\n\r\n", *[b"x"] * 24]
    answer = await send(platform, *chunks, pause=0.5, timeout=30)
    assert status_of(answer) in (0, 408)


async def test_a_body_that_ends_early_harms_nobody(platform: Platform) -> None:
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", platform.layout.port("public"))
        writer.write(POST + b"content-length: 1000\r\n\r\n{")
        await writer.drain()
        writer.close()


async def test_a_pipelined_smuggled_request_reaches_nobody(platform: Platform) -> None:
    smuggled = b"GET /v1/admin/users HTTP/1.1\r\nhost: x\r\n\r\n"
    message = POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled
    answer = await send(platform, message)
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert status_of(answer) in (0, 400)


async def _given_up(platform: Platform, headers: list[tuple[str, str]], body: bytes, after: float) -> None:
    """A request over HTTP/2 that is reset when it has been under way for some seconds."""
    host, port = platform.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    try:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        connection.send_headers(1, [(":scheme", "http"), (":authority", host), *headers], end_stream=not body)
        if body:
            connection.send_data(1, body, end_stream=True)
        writer.write(connection.data_to_send())
        await asyncio.sleep(after)
        connection.reset_stream(1, 8)
        writer.write(connection.data_to_send())
        await asyncio.sleep(0.02)
    finally:
        writer.transport.abort()


async def test_requests_that_are_given_up_are_no_errors_of_ours(people: People, platform: Platform) -> None:
    """At whatever moment, that at which the answer is being written included."""
    client, login = await people.newcomer()
    logs = [platform.layout.logs / f"{name}.log" for name in ("bff", "user", "order")]
    before = [log.stat().st_size for log in logs]
    bearer = ("authorization", f"Bearer {client.access_token}")
    wrong = json.dumps({"email": login.email, "password": "not the password"}).encode()
    chance = random.Random(1)
    reads = [[(":method", "GET"), (":path", path), bearer] for path in ("/v1/me/sessions", "/v1/me/overview")]
    log_in = [(":method", "POST"), (":path", "/v1/auth/login"), ("content-type", "application/json")]
    for _ in range(20):
        shots = [(read, b"", chance.uniform(0.001, 0.012)) for read in reads * 4] + [(log_in, wrong, 0.12)] * 2
        await asyncio.gather(*(_given_up(platform, *shot) for shot in shots))
    await asyncio.sleep(1)
    for log, start in zip(logs, before, strict=True):
        lines = log.read_bytes()[start:].decode().splitlines()
        assert len(lines) > 20
        assert [line for line in lines if not line.startswith("{") or '"level":"error"' in line] == []
