"""What one client may take of the edge; and that it gets more where the policy is left out."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import connection_burst
import hpack
import httpx
import inside
import psutil
from devstack.layout import PORTS, Layout
from devstack.options import Options
from mesh.envoy import CONNECTION_DRAIN_SECONDS, FLUSH_SECONDS
from mesh.site import Endpoint

from conftest import People, Platform, client_address, http_client
from devstack import proxies


async def test_a_large_body_is_refused_before_python(people: People, stack: Platform) -> None:
    body = b'{"email": "' + b"a" * 70_000 + b'"}'
    headers = {"content-type": "application/json"}
    much_more = b'{"email": "' + b"a" * 1_000_000 + b'"}'
    responses = [
        await people.http.post("/v1/auth/login", content=content, headers=headers) for content in (body, much_more)
    ]
    for response in responses:
        assert (response.status_code, response.json()["type"]) == (413, "urn:backend:problem:too-large")
    assert await inside.reached_python(stack, responses) == 0
    with inside.edge(stack, None, "body_limit") as url:
        async with http_client(url) as http:
            response = await http.post("/v1/auth/login", content=body, headers=headers)
    assert response.status_code == 413
    assert await inside.reached_python(stack, [response]) == 1


async def test_a_slow_body_never_reaches_python(stack: Platform) -> None:
    def refreshes() -> int:
        return (stack.layout.logs / "bff.log").read_text(encoding="utf-8").count('"path":"/v1/auth/refresh"')

    before = refreshes()
    _, writer = await asyncio.open_connection("127.0.0.1", stack.layout.port("public"))
    head = (
        b"POST /v1/auth/refresh HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    )
    writer.write(head)
    await writer.drain()
    await asyncio.sleep(2.5)
    assert refreshes() == before
    await inside.close(writer)


@contextmanager
def few_connections(stack: Platform, **options: Any) -> Iterator[Layout]:
    """An edge with a limiter that lets an address open twelve connections."""
    scaled = Options(rate_limit_scale=0.01, **options)
    with inside.another(stack, "limiter", scaled) as limiter:
        here = proxies.site(stack.layout, scaled)
        counting = {**here.endpoints, "limiter": (Endpoint("127.0.0.1", limiter.port("limiter")),)}
        with inside.another(stack, "edge", scaled, replace(here, endpoints=counting)) as edge:
            yield edge


async def test_one_address_cannot_open_connections_without_end(stack: Platform) -> None:
    address, other = client_address(), client_address()
    for without, served in (((), 12), (("connections",), 20)):
        with few_connections(stack, without=without) as edge:
            port = edge.port("public")
            assert sum([await inside.connection_is_served(port, address) for _ in range(20)]) == served
            assert await inside.connection_is_served(port, other)
            # Loopback's own address has opened more than twelve by now.
            await asyncio.gather(*(inside.connection_is_served(port, "127.0.0.1") for _ in range(12)))
            assert await inside.over_http3(stack, edge.port("public_tls")) == (None if served == 12 else 200)


async def test_no_connection_outlives_the_window_in_which_it_was_counted(stack: Platform) -> None:
    """So no more than were counted are ever open."""
    with inside.edge(stack, Options(connection_seconds=CONNECTION_DRAIN_SECONDS + 2)) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        started = asyncio.get_running_loop().time()
        async with asyncio.timeout(20):
            with suppress(ConnectionError):
                while True:
                    writer.write(b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n")
                    await writer.drain()
                    if not await reader.read(65536):
                        break
                    await asyncio.sleep(0.1)
        await inside.close(writer)
        assert 1.5 < asyncio.get_running_loop().time() - started < 15


async def test_an_answer_that_is_read_byte_by_byte_keeps_no_connection(stack: Platform) -> None:
    """It is never idle, and its stream would never end."""
    names = {":method": "GET", ":path": "/v1/products?limit=50", ":scheme": "https", ":authority": "api"}
    one_byte = (4).to_bytes(2, "big") + (1).to_bytes(4, "big")
    request = inside.frame(4, 0, 0, one_byte) + inside.frame(1, 0x5, 1, hpack.Encoder().encode(names.items()))
    one_more = inside.frame(8, 0, 1, (1).to_bytes(4, "big"))
    with inside.another(stack, "edge", Options(connection_seconds=CONNECTION_DRAIN_SECONDS + 2)) as own:
        context = inside.trusting(stack)
        context.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", own.port("public_tls"), ssl=context, server_hostname="localhost"
        )
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + request)
        give_up = asyncio.get_running_loop().time() + FLUSH_SECONDS + 5
        reads = 0
        with suppress(ConnectionError, ssl.SSLError):
            while asyncio.get_running_loop().time() < give_up:
                writer.write(one_more)
                with suppress(TimeoutError):
                    if not await asyncio.wait_for(reader.read(65536), 1):
                        break
                    reads += 1
                await asyncio.sleep(0.5)
        ended = asyncio.get_running_loop().time() < give_up
        await inside.close(writer)
    # It was being answered meanwhile.
    assert reads > 5
    assert ended


async def test_all_connections_together_are_bounded(stack: Platform) -> None:
    with inside.edge(stack, Options(max_connections=8)) as url:
        port = int(url.rsplit(":", 1)[1])
        held = [await inside.hold(port, client_address()) for _ in range(8)]
        assert all(connection.is_open for connection in held)
        assert not await inside.connection_is_served(port, client_address())
        # Who operates us is not kept out by clients.
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"http://127.0.0.1:{port - 8080 + 8140}/healthz/ready")).status_code == 200
        for connection in held:
            await connection.close()
        async with asyncio.timeout(5):
            while not await inside.connection_is_served(port, client_address()):
                await asyncio.sleep(0.1)


async def hold_all_they_may(edge: Layout, context: ssl.SSLContext, connections: int) -> list[inside.Held]:
    """Five addresses take whatever they get of so many connections, and send nothing, half a request, or no second one."""
    said = (b"", b"GET /v1/products HTTP/1.1\r\nhost: x\r\n", b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n")

    async def one_address(address: str) -> list[inside.Held]:
        # One after the other: it is not the limiter that is to be overrun here.
        return [
            await (
                inside.hold(edge.port("public"), address, said[n // 2 % 3])
                if n % 2
                else inside.hold(edge.port("public_tls"), address, said[n // 2 % 3], context)
            )
            for n in range(connections)
        ]

    held = await asyncio.gather(*(one_address(client_address()) for _ in range(5)))
    await asyncio.sleep(1)
    return [connection for of_one in held for connection in of_one]


async def test_a_few_addresses_cannot_hold_every_connection(stack: Platform) -> None:
    """Whoever comes from another address is served: over HTTP/1.1, and over TLS with HTTP/2."""
    context, most = inside.trusting(stack), 64
    h2 = inside.trusting(stack)
    h2.set_alpn_protocols(["h2"])

    async def newcomers(edge: Layout) -> list[int | None]:
        clear = [inside.connection_is_served(edge.port("public"), client_address()) for _ in range(10)]
        served: list[int | None] = [404 if answered else None for answered in await asyncio.gather(*clear)]
        for _ in range(10):
            transport = httpx.AsyncHTTPTransport(verify=h2, http1=False, http2=True, local_address=client_address())
            async with httpx.AsyncClient(transport=transport, timeout=10) as http:
                try:
                    answer = await http.get(f"https://localhost:{edge.port('public_tls')}/v1/products?limit=1")
                except httpx.HTTPError:
                    served.append(None)
                else:
                    served.append(answer.status_code)
        return served

    for without, expected in (((), {404, 200}), (("connections",), {None})):
        with inside.another(stack, "edge", Options(max_connections=most, without=without)) as edge:
            held = await hold_all_they_may(edge, context, most)
            taken = sum(connection.is_open for connection in held)
            assert set(await newcomers(edge)) == expected, (without, taken)
            # Each has a sixteenth of what the others leave free.
            assert (taken >= most) if without else (5 <= taken <= 5 * (most // 16)), (without, taken)
            for connection in held:
                await connection.close()


async def test_who_opens_connections_fast_gets_no_more_than_who_opens_them_slowly(stack: Platform) -> None:
    """However many ask at once, each waits for the limiter's answer; at full size: `tools/connection_burst.py`."""
    most = 512
    with inside.another(stack, "edge", Options(max_connections=most)) as edge:
        ops = f"http://127.0.0.1:{edge.port('edge_ops')}"
        seen = await connection_burst.attack(edge.port("public"), ops, 800, seconds=3)
    assert seen.unasked == 0, seen
    assert 0 < seen.held <= most // 16, seen
    assert seen.others[True], seen
    assert not seen.others[False], seen


async def test_a_limiter_that_hangs_keeps_nobody_out(stack: Platform) -> None:
    with inside.paused(stack.pid("limiter")):
        newcomers = [inside.connection_is_served(stack.layout.port("public"), client_address()) for _ in range(50)]
        assert all(await asyncio.gather(*newcomers))
        # From when it is known nobody waits for it, and while it hangs there is no end to those who come.
        assert all([await inside.connection_is_served(stack.layout.port("public"), client_address()) for _ in range(5)])


async def test_idle_connections_go_when_there_are_many_and_no_request_is_cut(stack: Platform) -> None:
    """They would be kept for a minute; a request is waited for as long as any may take."""
    for without, kept in (((), 0), (("overload",), 9)):
        with inside.another(stack, "edge", Options(max_connections=10, without=without)) as edge:
            idle = [await inside.hold(edge.port("public"), client_address()) for _ in range(9)]
            # The edge knows of them: the shortest time that is left for anything idle is two seconds now.
            await asyncio.sleep(1.5)
            async with inside.from_address(client_address(), f"http://127.0.0.1:{edge.port('public')}") as http:
                with inside.paused(stack.pid("bff")):
                    asked = asyncio.create_task(http.get("/v1/products?limit=1"))
                    await asyncio.sleep(2.6)
                assert (await asked).status_code == 200
            await asyncio.sleep(1)
            assert sum(connection.is_open for connection in idle) == kept, without
            for connection in idle:
                await connection.close()


async def test_memory_is_bounded_and_load_is_shed_before_the_bound(stack: Platform) -> None:
    # An edge needs about 8 MiB to begin with: it is over this bound as soon as it looks, which a busy one does late.
    async def is_served(url: str) -> bool:
        async with http_client(url) as http:
            try:
                return (await http.get("/v1/products?limit=1")).status_code == 200
            except httpx.HTTPError:
                return False

    with inside.edge(stack, Options(max_heap_mib=1), becomes_ready=False) as url:
        give_up = time.monotonic() + 30
        while await is_served(url):
            assert time.monotonic() < give_up
            await asyncio.sleep(0.2)
    with inside.edge(stack, Options(max_heap_mib=1), "overload") as url:
        await asyncio.sleep(1)
        assert await is_served(url)


async def seconds_until_closed(port: int, message: bytes, patience: float) -> float | None:
    """How long a connection that sends this and no more is kept; None when longer than `patience` seconds."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(client_address(), 0))
    started = loop.time()
    try:
        writer.write(message)
        with suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), patience)
    except TimeoutError:
        return None
    finally:
        await inside.close(writer)
    return loop.time() - started


async def test_who_sends_slowly_is_not_waited_for(stack: Platform) -> None:
    headers = b"GET /v1/products?limit=1 HTTP/1.1\r\nhost: x\r\n"
    body = b"POST /v1/auth/refresh HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
    with inside.edge(stack, None, "slow_senders") as url:
        open_port = int(url.rsplit(":", 1)[1])
        kept = await asyncio.gather(
            *(seconds_until_closed(stack.layout.port("public"), message, 12) for message in (headers, body)),
            *(seconds_until_closed(open_port, message, 12) for message in (headers, body)),
        )
    assert 4.5 < (kept[0] or 0) < 7
    assert 9.5 < (kept[1] or 0) < 12
    assert kept[2:] == [None, None]


async def test_headers_are_bounded_in_number_size_and_spelling(people: People, stack: Platform) -> None:
    cases = {
        "eighty": ({f"x-{number}": "y" for number in range(80)}, 431),
        "9 KiB": ({"x-large": "y" * 9_216}, 431),
        "48 KiB": ({"x-large": "y" * 49_152}, 431),
        "an underscore": ({"x_caller_id": "admin"}, 400),
    }
    with inside.edge(stack, None, "header_bounds") as url:
        async with http_client(url) as unbounded:
            for what, (headers, status) in cases.items():
                refused = await people.http.get("/v1/products?limit=1", headers=headers)
                assert refused.status_code == status, what
                assert refused.json()["type"] == "urn:backend:problem:malformed-request"
                assert (await unbounded.get("/v1/products?limit=1", headers=headers)).status_code == 200, what


async def test_a_path_has_one_spelling(people: People, stack: Platform) -> None:
    """What the edge compares with its rules is what Python reads."""
    client, _ = await people.newcomer()

    async def get(port: int, path: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(client_address(), 0))
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {client.access_token}\r\n\r\n".encode())
        answer = await reader.read(12)
        await inside.close(writer)
        return answer.decode()[-3:]

    async def read_by_python() -> int:
        await asyncio.sleep(2.5)
        return (stack.layout.logs / "bff.log").read_text(encoding="utf-8").count('"path":"/v1/orders/.."')

    port = stack.layout.port("public")
    paths = ("/v1//products?limit=1", "/v1/orders/../me", "/v1/orders/%2e%2e/me", "/v1/orders/..", "/v1/me%2fsessions")
    assert [await get(port, path) for path in paths] == ["200", "200", "200", "404", "400"]
    assert await read_by_python() == 0
    with inside.edge(stack, None, "paths") as url:
        assert await get(int(url.rsplit(":", 1)[1]), "/v1/orders/..") == "404"
    assert await read_by_python() == 1


async def test_thousands_of_new_connections_keep_nobody_waiting_who_is_there(stack: Platform) -> None:
    """In the order in which the edge answers, which does not depend on how fast it is."""
    encoder = hpack.Encoder()
    names = [(":method", "GET"), (":path", "/nothing/mine"), (":scheme", "https"), (":authority", "api")]
    # The edge takes four of them at a time.
    mine = b"".join(inside.frame(1, 0x5, 2 * number + 1, encoder.encode(names)) for number in range(12))
    settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + inside.frame(4, 0, 0, b"")

    async def answered_before(*without: str) -> int:
        """Of 500 connections that came first, how many are answered before the requests of one that was there."""
        # To a trusted proxy's connections there is no question to the limiter that would hold the others up.
        with inside.edge(stack, Options(trusted_proxies=("127.0.0.0/8",)), *without) as url:
            port = int(url.rsplit(":", 1)[1])
            edge = max(psutil.Process().children(), key=lambda process: process.create_time())
            log = stack.layout.logs / f"edge-at-{port - PORTS['public']}.log"
            held = await inside.hold(port, "127.0.0.1", settings)
            assert held.stream
            reader, writer = held.stream
            await reader.read(1)
            with inside.paused(edge.pid):
                others = [await inside.hold(port, "127.0.0.1", _OTHERS) for _ in range(500)]
                writer.write(mine)
                await writer.drain()
            # Envoy writes its access log once a second.
            while (text := log.read_text(encoding="utf-8")).count("/nothing/others") < 500 or text.count(
                "/nothing/mine"
            ) < 12:
                await asyncio.sleep(0.25)
            for other in (held, *others):
                await other.close()
            return text[: text.rindex("/nothing/mine")].count("/nothing/others")

    assert await answered_before() < 50
    assert await answered_before("connections") > 50


_OTHERS = b"GET /nothing/others HTTP/1.1\r\nhost: x\r\n\r\n"
