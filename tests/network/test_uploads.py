"""Who sends all of a request before reading gets its answer, whatever the answer; and who sends without end is cut."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import ExitStack, closing, suppress
from itertools import product

import httpx
import inside
import pytest
import uploads
from devstack.layout import Layout
from devstack.options import Options
from fuzz.mutations import Shot
from fuzz.senders import Target, h3
from fuzz.watch import metrics
from mesh.envoy import MAX_DISCARDED_BYTES
from uploads import upload

from conftest import Platform, client_address

JSON = "content-type: application/json"
TWO_HOSTS = "host: evil.example"
MORE = uploads.SIZE
# Comes whole, and is yet answered by what its head says.
WITHIN = 60_000
ALLOCATED = "envoy_server_memory_allocated{}"


def target(stack: Platform, own: Layout) -> Target:
    return Target(own.port("public"), own.port("public_tls"), stack.layout.certificates / "public" / "ca.crt")


@pytest.mark.parametrize(
    ("status", "size", "method", "path", "fields"),
    [
        (413, MORE, "POST", "/v1/auth/login", [JSON]),
        (413, MORE, "PUT", "/v1/products", []),
        (401, MORE, "POST", "/v1/orders", [JSON]),
        (404, MORE, "POST", "/v1/nope", [JSON]),
        (400, MORE, "POST", "/v1/auth/login", [JSON, TWO_HOSTS]),
        (401, WITHIN, "POST", "/v1/orders", [JSON]),
        (404, WITHIN, "POST", "/v1/nope", [JSON]),
        (405, WITHIN, "PUT", "/v1/products", [JSON]),
        (415, WITHIN, "POST", "/v1/auth/refresh", ["content-type: text/plain"]),
        (400, WITHIN, "POST", "/v1/auth/login", [JSON, TWO_HOSTS]),
        (400, WITHIN, "POST", "/v1/auth/login", [JSON]),
    ],
)
async def test_an_early_answer_arrives(
    stack: Platform, status: int, size: int, method: str, path: str, fields: list[str]
) -> None:
    """By length and in chunks, in the clear and over TLS. (`tools/uploads.py` counts a hundred.)"""
    where, source = target(stack, stack.layout), client_address()
    for chunked, tls in product((False, True), repeat=2):
        answer = await asyncio.to_thread(
            upload, where, method, path, *fields, size=size, chunked=chunked, tls=tls, address=source
        )
        assert answer == status, (chunked, tls)


async def test_so_does_that_it_was_one_too_many(stack: Platform) -> None:
    with inside.another(stack, "edge", Options(rate_limit_scale=0.01, without=("connections",))) as own:
        sent = (target(stack, own), "POST", "/v1/auth/refresh", JSON)
        seen = [await asyncio.to_thread(upload, *sent, size=WITHIN, chunked=chunked) for chunked in (False, True) * 3]
    assert seen[-4:] == [429] * 4


async def test_without_the_rule_the_answer_is_lost(stack: Platform) -> None:
    with inside.another(stack, "edge", Options(without=("body_limit", "connections"))) as own:
        sent = (target(stack, own), "POST", "/v1/auth/login", JSON)
        assert isinstance(await asyncio.to_thread(upload, *sent, size=MORE), str)


async def test_over_http2_and_http3_as_well(stack: Platform) -> None:
    where = target(stack, stack.layout)
    context = ssl.create_default_context(cafile=str(where.authority))
    transport = httpx.AsyncHTTPTransport(http1=False, http2=True, verify=context, local_address=client_address())
    async with httpx.AsyncClient(transport=transport, timeout=20) as http:
        for _ in range(3):
            answer = await http.post(f"https://localhost:{where.tls_port}/v1/auth/login", content=b"x" * MORE)
            assert (answer.status_code, answer.http_version) == (413, "HTTP/2")
    # Half a megabyte takes a client in Python its time beside others.
    shot = Shot(method=b"POST", path=b"/v1/auth/login", body=b"x" * 500_000)
    assert await h3(where, [shot], "", patience=30) == [413]


async def test_who_sends_without_end_is_cut_and_nobodys_bytes_are_held(stack: Platform) -> None:
    with inside.another(stack, "edge", Options(without=("connections",))) as own, ExitStack() as opened:
        where, ops = target(stack, own), f"http://127.0.0.1:{own.port('edge_ops')}"
        head = uploads.head("POST", "/v1/auth/login", JSON, size=0, chunked=True)

        def begin() -> socket.socket:
            connection = opened.enter_context(closing(uploads.connected(where, "127.0.0.1", tls=False)))
            connection.sendall(head)
            uploads.send_body(connection, MORE, chunked=True, last=False)
            return connection

        def endless() -> int:
            connection, sent = begin(), MORE
            with suppress(OSError):
                while sent < 8 * MAX_DISCARDED_BYTES:
                    uploads.send_body(connection, 100_000, chunked=True, last=False)
                    sent += 100_000
            return sent

        before = (await metrics(ops))[ALLOCATED]
        # 300 MB, of which each sender may have 64 KiB kept.
        unfinished = [await asyncio.to_thread(begin) for _ in range(60)]
        assert (await metrics(ops))[ALLOCATED] - before < 60 * 200_000
        for connection in unfinished[:5]:
            connection.sendall(b"0\r\n\r\n")
            assert await asyncio.to_thread(uploads.status, connection) == 413
        # What the sockets of both sides hold comes on top: tens of MB here.
        assert await asyncio.to_thread(endless) < 6 * MAX_DISCARDED_BYTES
