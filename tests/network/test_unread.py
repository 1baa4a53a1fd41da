"""Who asks for much and reads nothing has no part of what others need: the hops that all share, and memory."""

from __future__ import annotations

import asyncio

import hpack
import httpx
import inside
import psutil
from contracts.bff.v1.operations import OPERATIONS
from devstack.options import Options
from mesh.envoy import ADDRESS_PARTS, FLUSH_SECONDS, MAX_HEADER_KIB, MAX_HEADERS, client_streams

from conftest import Platform, client_address

# Their answers are two megabytes each, together more than any window that Envoy chooses by itself.
_READERS = 40
_UNREAD = 100


async def asked_and_unread(port: int, address: str, path: str, streams: int) -> inside.Held:
    """A connection that asks so often at once, and gives no answer a window (RFC 9113, 6.9.2)."""
    no_window = inside.frame(4, 0, 0, (4).to_bytes(2, "big") + (0).to_bytes(4, "big"))
    encoder = hpack.Encoder()
    names = [(":method", "GET"), (":path", path), (":scheme", "https"), (":authority", "api")]
    asked = (inside.frame(1, 0x5, 2 * number + 1, encoder.encode(names)) for number in range(streams))
    return await inside.hold(port, address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + no_window + b"".join(asked))


async def whole_answers(url: str, count: int) -> int:
    """How many of so many reads by somebody else are answered to the end while the others are still waited for."""

    async def read(http: httpx.AsyncClient, path: str) -> bool:
        try:
            async with asyncio.timeout(FLUSH_SECONDS / 2):
                return (await http.get(path)).status_code == 200
        except (httpx.HTTPError, TimeoutError):
            return False

    async with inside.from_address(client_address(), url) as http:
        paths = ["/v1/products?limit=50", "/docs"]
        return sum(await asyncio.gather(*(read(http, paths[number % 2]) for number in range(count))))


async def test_answers_that_nobody_reads_hold_up_nobody(stack: Platform) -> None:
    """All clients' answers come over one connection from the BFF."""
    for without, whole in (((), 6), (("flow_control",), 0)):
        with inside.edge(stack, Options(rate_limit_scale=100), *without) as url:
            port = int(url.rsplit(":", 1)[1])
            held = [await asked_and_unread(port, client_address(), "/docs", 10) for _ in range(_READERS // 10)]
            await asyncio.sleep(1)
            assert await whole_answers(url, 6) == whole, without
            for one in held:
                assert one.is_open
                await one.close()


async def allocated(stack: Platform) -> int:
    """Bytes of the edge's heap."""
    transport = httpx.AsyncHTTPTransport(uds=str(stack.layout.data_dir / "run" / "edge.admin.sock"))
    async with httpx.AsyncClient(transport=transport) as admin:
        return int((await admin.get("http://admin/memory")).json()["allocated"])


def literal(name: bytes, value: bytes, indexed: bool = False) -> bytes:
    """A field, each part shorter than 127 bytes (RFC 7541, 6.2)."""
    return bytes([0x40 if indexed else 0, len(name)]) + name + bytes([len(value)]) + value


async def test_one_address_holds_less_than_half_of_the_heap(stack: Platform) -> None:
    """All its connections and streams, each with as many fields as go in, while their bodies are waited for."""
    options, connections = Options(), 40
    fields = MAX_HEADERS - 4
    # 32 bytes of each are counted beside (RFC 9113, 6.5.2).
    named = literal(b"a", b"v" * (MAX_HEADER_KIB * 1024 // fields - 40), indexed=True)
    pseudo = ((b":method", b"POST"), (b":path", b"/v1/auth/login"), (b":scheme", b"https"), (b":authority", b"api"))
    asked = b"".join(literal(name, value) for name, value in pseudo)
    # The newest entry of the table, again and again.
    again = b"\xbe"
    blocks = [asked + named + again * (fields - 1)] + [asked + again * fields] * (client_streams(options) - 1)
    streams = b"".join(inside.frame(1, 0x4, 2 * number + 1, block) for number, block in enumerate(blocks))
    message = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + inside.frame(4, 0, 0, b"") + streams
    context, address = inside.trusting(stack), client_address()
    context.set_alpn_protocols(["h2"])
    before = await allocated(stack)
    port = stack.layout.port("public_tls")
    held = [await inside.hold(port, address, message, context) for _ in range(connections)]
    await asyncio.sleep(1)
    each = (await allocated(stack) - before) / connections
    assert all(one.is_open for one in held)
    for one in held:
        await one.close()
    # They are there: a stream takes what its fields say, and more.
    assert each > client_streams(options) * 1024 * MAX_HEADER_KIB / 2
    assert each * options.max_connections * sum(ADDRESS_PARTS) < options.max_heap_mib * 2**20 / 2


async def test_answers_that_nobody_reads_cost_the_bff_a_part_each(stack: Platform) -> None:
    """And an address may ask for few of the largest."""
    (limit,) = {o.rate_limit.requests for o in OPERATIONS if o.id in ("getDocs", "getOpenapi", "getAsyncapi")}
    assert limit <= 20
    bff = psutil.Process(stack.pid("bff"))
    processes = [bff, *bff.children(recursive=True)]

    def resident() -> int:
        return sum(process.memory_info().rss for process in processes)

    with inside.edge(stack, Options(rate_limit_scale=100)) as url:
        port = int(url.rsplit(":", 1)[1])
        # What it takes to begin with.
        assert await whole_answers(url, 6) == 6
        before = resident()
        held = [await asked_and_unread(port, client_address(), "/docs", 10) for _ in range(_UNREAD // 10)]
        await asyncio.sleep(2)
        grown = resident() - before
        for one in held:
            assert one.is_open
            await one.close()
        assert await whole_answers(url, 6) == 6
    assert grown < _UNREAD * 400_000
    log = (stack.layout.logs / "bff.log").read_text(encoding="utf-8")
    assert "Traceback" not in log
