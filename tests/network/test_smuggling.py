"""Request smuggling: what two readers could understand differently is refused, or harmless to the next client."""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from contextlib import suppress

import h2.config
import h2.connection
import h2.events
import hpack
import inside
import pytest
from devstack.options import Options

from conftest import Platform

POST = "POST /v1/auth/refresh HTTP/1.1\r\nhost: api\r\ncontent-type: application/json\r\n"
GET = "GET /v1/products?limit=1 HTTP/1.1\r\nhost: api\r\n"

# What a confused reader would take for a second request, as the body or the rest of the first. {hidden} is its line.
CASES = {
    "CL.TE": POST + "content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
    "TE.CL": POST + "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n{chunk}\r\n{hidden}\r\n0\r\n\r\n",
    "TE.TE": POST + "transfer-encoding: chunked\r\ntransfer-encoding: cow\r\n\r\n0\r\n\r\n{hidden}",
    "obscured TE": POST + "content-length: {length}\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}",
    "TE with a tab": POST + "content-length: {length}\r\ntransfer-encoding:\tchunked\r\n\r\n0\r\n\r\n{hidden}",
    "space before the colon": POST + "content-length: {length}\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n{hidden}",
    "duplicate lengths": POST + "content-length: 2\r\ncontent-length: {length}\r\n\r\n{{}}{hidden}",
    "length list": POST + "content-length: 2, {length}\r\n\r\n{{}}{hidden}",
    "signed length": POST + "content-length: +2\r\n\r\n{{}}{hidden}",
    "obsolete folding": POST + "x-a: b\r\n content-length: 0\r\ncontent-length: {length}\r\n\r\n{{}}{hidden}",
    "bare line feeds": POST.replace("\r\n", "\n") + "content-length: 2\n\n{{}}{hidden}",
    "bare line feed in a header": GET + "x-a: b\ntransfer-encoding: chunked\r\n\r\n{hidden}",
    "bare carriage return": GET + "x-a: b\rtransfer-encoding: chunked\r\n\r\n{hidden}",
    "chunk extension with a line feed": POST + "transfer-encoding: chunked\r\n\r\n2;\nxx\r\n{{}}\r\n0\r\n\r\n{hidden}",
    "chunk size overflow": POST + "transfer-encoding: chunked\r\n\r\nffffffffffffffff0\r\n{hidden}",
    "a body on GET": GET + "content-length: {length}\r\n\r\n{hidden}",
    "null byte": GET + "x-a: b\0\r\ncontent-length: {length}\r\n\r\n{hidden}",
    "an upgrade to HTTP/2": GET
    + "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n{hidden}",
}

# RFC 9112, section 2.2, lets a recipient take a bare line feed for a line's end, and a bare carriage return for white
# space; an upgrade that is not taken leaves an HTTP/1.1 request. The edge sees two requests and answers both to their
# sender: the second with 400, for the line that follows has made it one with two hosts.


async def exchange(platform: Platform, message: bytes) -> bytes:
    """Everything that comes back on one connection until it is closed or silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", platform.layout.port("public"))
    received = b""
    try:
        writer.write(message)
        with suppress(TimeoutError, ConnectionError):
            while data := await asyncio.wait_for(reader.read(65536), 1.5):
                received += data
    finally:
        await inside.close(writer)
    return received


async def logs_are_written() -> None:
    """Envoy writes its access log once a second."""
    await asyncio.sleep(1.5)


def seen_by_the_bff(stack: Platform, marker: str) -> list[str]:
    lines = (stack.layout.logs / "bff.log").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["path"] for line in lines if marker in line and '"event":"request"' in line]


async def test_a_hidden_request_is_never_anybody_elses(stack: Platform) -> None:
    markers = {name: uuid.uuid4().hex for name in CASES}

    async def send(name: str) -> bytes:
        hidden = f"GET /v1/products/{markers[name]} HTTP/1.1\r\nhost: api\r\nx-a: "
        message = CASES[name].format(hidden=hidden, length=len(hidden) + 5, chunk=f"{len(hidden):x}")
        # The next client's request, as it would follow on a connection that a proxy shares.
        return await exchange(stack, message.encode() + f"{GET}x-b: c\r\n\r\n".encode())

    answers = dict(zip(CASES, await asyncio.gather(*map(send, CASES)), strict=True))
    control = uuid.uuid4().hex
    await exchange(stack, f"GET /v1/products/{control} HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n".encode())
    # In the open, the same line is a request like any other.
    async with asyncio.timeout(10):
        while seen_by_the_bff(stack, control) != [f"/v1/products/{control}"]:
            await logs_are_written()
    for name, received in answers.items():
        statuses = [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]
        assert all(status < 500 for status in statuses), (name, received)
        # Once a request was refused, nothing that followed on its connection was served.
        if statuses and statuses[0] == 400:
            assert set(statuses) == {400}, (name, received)
        # The hidden one never got past the door.
        assert seen_by_the_bff(stack, markers[name]) == [], name
    assert (await exchange(stack, f"{GET}connection: close\r\n\r\n".encode())).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ("GET http://evil.example/v1/products?limit=1 HTTP/1.1", "api"),
        ("GET http://api/v1/products?limit=1 HTTP/1.1", "evil.example"),
        ("GET http://user@api/v1/products?limit=1 HTTP/1.1", "api"),
        ("GET //evil.example/v1/products?limit=1 HTTP/1.1", "api"),
        ("GET /v1/products?limit=1 HTTP/1.1", "api\r\nhost: evil.example"),
    ],
)
async def test_where_a_request_is_addressed_changes_nothing(stack: Platform, line: str, host: str) -> None:
    received = await exchange(stack, f"{line}\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
    # One name or another: it is the same API, and no answer repeats the name.
    assert received[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 400", b"HTTP/1.1 404"), received
    assert b"evil.example" not in received


H2_CASES = {
    "transfer-encoding": [("transfer-encoding", "chunked")],
    "connection": [("connection", "close, x-client-address")],
    "a header within a value": [("x-a", "b\r\nhost: evil.example\r\n\r\nGET /v1/products/{marker} HTTP/1.1\r\nx: ")],
    "a header within a name": [("x-a: b\r\ntransfer-encoding", "chunked")],
    "a wrong length": [("content-length", "1000")],
    "an upper case name": [("X-Upper", "b")],
    "a colon in a name": [("x:a", "b")],
    "two paths": [(":path", "/v1/products/{marker}")],
    "a space in the method": [(":method", "GET /v1/products/{marker} HTTP/1.1")],
    "te": [("te", "gzip")],
    "another host": [("host", "evil.example")],
    "a null byte": [("x-a", "b\0c")],
}


async def h2_request(stack: Platform, extra: list[tuple[str, str]]) -> tuple[int | None, bool]:
    """The status of a request over HTTP/2 with headers nobody checked, and whether the connection goes on serving."""
    context = ssl.create_default_context(cafile=str(stack.layout.certificates / "public" / "ca.crt"))
    context.set_alpn_protocols(["h2"])
    port = stack.layout.port("public_tls")
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    config = h2.config.H2Configuration(
        validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="utf-8"
    )
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    pseudo = {":method": "GET", ":path": "/v1/products?limit=1", ":scheme": "https", ":authority": "api"}
    doubled = [pair for pair in extra if pair[0] in pseudo and pair[0] != ":method"]
    pseudo |= {name: value for name, value in extra if name == ":method"}
    plain = [pair for pair in extra if pair[0] not in pseudo]
    connection.send_headers(1, [*pseudo.items(), *doubled, *plain], end_stream=True)
    connection.send_headers(
        3,
        [(":method", "GET"), (":path", "/v1/products?limit=1"), (":scheme", "https"), (":authority", "api")],
        end_stream=True,
    )
    writer.write(connection.data_to_send())
    statuses: dict[int, int] = {}
    with suppress(TimeoutError, ConnectionError, ssl.SSLError):
        while len(statuses) < 2 and (data := await asyncio.wait_for(reader.read(65536), 2)):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    statuses[event.stream_id] = int(dict(event.headers)[":status"])  # type: ignore[index]
    await inside.close(writer)
    return statuses.get(1), statuses.get(3) == 200


async def test_what_http2_lets_through_is_no_second_request_behind(stack: Platform) -> None:
    markers = {name: uuid.uuid4().hex for name in H2_CASES}

    async def send(name: str) -> int | None:
        headers = [(key, value.format(marker=markers[name])) for key, value in H2_CASES[name]]
        return (await h2_request(stack, headers))[0]

    statuses = dict(zip(H2_CASES, await asyncio.gather(*map(send, H2_CASES)), strict=True))
    await logs_are_written()
    for name, status in statuses.items():
        assert status is None or status < 500, name
        assert seen_by_the_bff(stack, markers[name]) == [], name
    assert await h2_request(stack, []) == (200, True)


async def ends_a_flood(stack: Platform, frames: bytes, times: int, port: int | None = None) -> bool:
    """Send frames again and again on one connection, reading nothing; whether the edge closes it."""
    context = ssl.create_default_context(cafile=str(stack.layout.certificates / "public" / "ca.crt"))
    context.set_alpn_protocols(["h2"])
    port = port or stack.layout.port("public_tls")
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    try:
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + inside.frame(4, 0, 0, b""))
        for number in range(times):
            writer.write(frames.replace(b"STRM", (2 * number + 1).to_bytes(4, "big")))
            await asyncio.wait_for(writer.drain(), 2)
        while await asyncio.wait_for(reader.read(1 << 20), 2):
            pass
    except TimeoutError:
        return False
    except (ConnectionError, ssl.SSLError):
        return True
    finally:
        await inside.close(writer)
    return True


async def test_rapid_resets_end_the_connection(stack: Platform) -> None:
    headers = hpack.Encoder().encode(
        [(":method", "GET"), (":path", "/v1/products"), (":scheme", "https"), (":authority", "a")]
    )
    # HEADERS (END_STREAM, END_HEADERS), then RST_STREAM (CANCEL), each on a new stream.
    once = inside.frame(1, 0x5, b"STRM", headers) + inside.frame(3, 0, b"STRM", (8).to_bytes(4, "big"))
    # Envoy's own limit, half of 500 resets on a connection, is what is left without ours, half of 200.
    assert await ends_a_flood(stack, once, 200)
    assert await h2_request(stack, []) == (200, True)
    with inside.another(stack, "edge", Options(without=("http2_floods",))) as own:
        assert not await ends_a_flood(stack, once, 200, own.port("public_tls"))


async def test_endless_continuations_end_the_connection(stack: Platform) -> None:
    # A HEADERS frame without END_HEADERS on stream 1, then CONTINUATION frames for ever.
    first = inside.frame(1, 0, 1, b"\x00\x01a\x01b" * 100)
    more = inside.frame(9, 0, 1, b"\x00\x01a\x01b" * 100)
    assert await ends_a_flood(stack, first + more * 1000, 1)
    assert await h2_request(stack, []) == (200, True)


@pytest.mark.parametrize(
    "frames",
    [
        inside.frame(6, 0, 0, b"12345678"),
        inside.frame(4, 0, 0, b""),
        inside.frame(2, 0, 1, b"\0\0\0\0\1"),
        inside.frame(0, 0, 1, b""),
    ],
    ids=["pings", "settings", "priorities", "empty data"],
)
async def test_floods_of_control_frames_end_the_connection(stack: Platform, frames: bytes) -> None:
    assert await ends_a_flood(stack, frames * 100, 1000)
    assert await h2_request(stack, []) == (200, True)


@pytest.mark.parametrize("wanted", ["websocket", "TLS/1.0", "h2c, websocket", "what-nobody-knows/9"])
async def test_a_wish_for_another_protocol_changes_no_answer(platform: Platform, wanted: str) -> None:
    """It may be ignored (RFC 9110, 7.8). To call it a wrong token would have a client throw its token away."""
    answer = await exchange(platform, f"{GET}connection: upgrade, close\r\nupgrade: {wanted}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_target_that_is_not_served_here_is_no_question_of_tokens(platform: Platform) -> None:
    """Only what came encrypted can be for an https URI (RFC 9110, 7.4)."""
    secure = GET.replace("GET /", "GET https://api/", 1)
    answer = await exchange(platform, f"{secure}connection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"problem:malformed-request" in answer
