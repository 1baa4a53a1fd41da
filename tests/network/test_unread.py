"""Who asks for much and reads nothing has no part of what others need: the hops that all share, and memory."""

from __future__ import annotations

import asyncio

import hpack
import httpx
import mesh
from devstack.envoy import FLUSH_SECONDS
from devstack.options import Options

from conftest import Platform, client_address

# Their answers are two megabytes each, together more than any window that Envoy chooses by itself.
_READERS = 40


async def asked_and_unread(port: int, address: str, path: str, streams: int) -> mesh.Held:
    """A connection that asks so often at once, and gives no answer a window (RFC 9113, 6.9.2)."""
    no_window = mesh.frame(4, 0, 0, (4).to_bytes(2, "big") + (0).to_bytes(4, "big"))
    encoder = hpack.Encoder()
    names = [(":method", "GET"), (":path", path), (":scheme", "https"), (":authority", "api")]
    asked = (mesh.frame(1, 0x5, 2 * number + 1, encoder.encode(names)) for number in range(streams))
    return await mesh.hold(port, address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + no_window + b"".join(asked))


async def whole_answers(url: str, count: int) -> int:
    """How many of so many reads by somebody else are answered to the end while the others are still waited for."""

    async def read(http: httpx.AsyncClient, path: str) -> bool:
        try:
            async with asyncio.timeout(FLUSH_SECONDS / 2):
                return (await http.get(path)).status_code == 200
        except (httpx.HTTPError, TimeoutError):
            return False

    async with mesh.from_address(client_address(), url) as http:
        paths = ["/v1/products?limit=50", "/docs"]
        return sum(await asyncio.gather(*(read(http, paths[number % 2]) for number in range(count))))


async def test_answers_that_nobody_reads_hold_up_nobody(stack: Platform) -> None:
    """All clients' answers come over one connection from the BFF."""
    for without, whole in (((), 6), (("flow_control",), 0)):
        with mesh.edge(stack, Options(rate_limit_scale=100), *without) as url:
            held = await asked_and_unread(int(url.rsplit(":", 1)[1]), client_address(), "/docs", _READERS)
            await asyncio.sleep(1)
            assert await whole_answers(url, 6) == whole, without
            assert held.is_open
            await held.close()
