"""Our gRPC and grpcio's, in both directions, through a real Envoy with Python inside."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from devstack.proxies import python_module
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from jinja2 import Environment, PackageLoader, StrictUndefined
from mesh.envoy import Upstream
from mesh.site import Endpoint
from mesh.statistics import BUCKETS

APPS = Path(__file__).parent / "apps"
SERVICE = "interop.v1.Echo"


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """An Envoy with the interop application inside: its port, and the port where grpcio's server is to listen."""
    traffic, ops, upstream = free_ports(3)
    templates = Environment(loader=PackageLoader("mesh"), undefined=StrictUndefined)  # noqa: S701
    # Without any policy: grpcio's own server and client are the peers here.
    templates.globals["on"] = lambda _policy: False
    text = templates.get_template("service.yaml.j2").render(
        name="interop", service="interop", package="interop_app", grpc=True, lifespan=True, module=str(python_module()),
        address="127.0.0.1", port=traffic, ops_address="127.0.0.1", ops_hosts=["*"], ops_port=ops, peers=[], request_id="-", hop_streams=9,
        ops_networks=[{"address": "127.0.0.0", "length": 8}], buckets=BUCKETS,
        admin_socket="admin.sock", ops_socket="ops.sock", egress_socket="egress.sock",
        upstreams=[Upstream("user", grpc=True, endpoints=(Endpoint("127.0.0.1", upstream),))],
    )  # fmt: skip
    config = tmp_path_factory.mktemp("interop") / "envoy.yaml"
    config.write_text(text.replace("interop_app.main:", "interop_app:"), encoding="utf-8")
    log = (config.parent / "log").open("wb")
    environment = {**os.environ, "PYTHONPATH": str(APPS)}
    launcher = [sys.executable, "-m", "chassis.launch", str(config)]
    process = subprocess.Popen(launcher, env=environment, stdout=log, stderr=log, cwd=config.parent)
    try:
        for _ in range(200):
            try:
                if httpx.get(f"http://127.0.0.1:{ops}/healthz/ready").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert process.poll() is None, (config.parent / "log").read_text(encoding="utf-8")
            import time

            time.sleep(0.05)
        yield traffic, upstream
    finally:
        process.terminate()
        process.wait()
        log.close()


def identity(message: bytes) -> bytes:
    return message


class Client:
    """grpcio's client."""

    def __init__(self, port: int, **options: Any) -> None:
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", **options)

    def unary(self, method: str) -> Any:
        return self.channel.unary_unary(f"/{SERVICE}/{method}", identity, identity)

    def stream(self, method: str) -> Any:
        return self.channel.unary_stream(f"/{SERVICE}/{method}", identity, identity)


@pytest.fixture
async def client(ports: tuple[int, int]) -> AsyncIterator[Client]:
    made = Client(ports[0])
    yield made
    await made.channel.close()


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


class TestOurServerWithGrpciosClient:
    async def test_unary_with_metadata_both_ways(self, client: Client) -> None:
        call = client.unary("Echo")(b"hello", metadata=(("x-echo", "you"), ("x-echo-bin", b"\x00\x01\xff")))
        assert await call == b"hello"
        assert dict(await call.initial_metadata())["x-initial"] == "you"
        trailing = dict(await call.trailing_metadata())
        assert (trailing["x-trailing"], trailing["x-echo-bin"]) == ("you", b"\x00\x01\xff")

    async def test_an_empty_message(self, client: Client) -> None:
        assert await client.unary("Echo")(b"") == b""

    async def test_server_streaming(self, client: Client) -> None:
        messages = [message async for message in client.stream("Count")(b"50")]
        assert (len(messages), messages[7]) == (50, b"7" * 100)
        assert [message async for message in client.stream("Count")(b"0")] == []

    async def test_a_stream_that_fails_after_its_messages(self, client: Client) -> None:
        seen = []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for message in client.stream("Count")(b"3!"):
                seen.append(message)  # noqa: PERF401 - `extend` would lose those before the error
        assert len(seen) == 3
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.DATA_LOSS, "lost after messages")

    async def test_client_and_bidirectional_streaming(self, client: Client) -> None:
        async def messages() -> AsyncIterator[bytes]:
            for letter in (b"a", b"b", b"c"):
                yield letter

        collect = client.channel.stream_unary(f"/{SERVICE}/Collect", identity, identity)
        assert await collect(messages()) == b"a,b,c"
        chat = client.channel.stream_stream(f"/{SERVICE}/Chat", identity, identity)
        assert [message async for message in chat(messages())] == [b"A", b"B", b"C"]

    async def test_the_deadline_arrives_and_is_kept(self, client: Client) -> None:
        left = float(await client.unary("Sleep")(b"0", timeout=5))
        assert 4 < left < 5.1
        error = await failure(client.unary("Sleep")(b"10", timeout=0.3))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    async def test_the_handler_stops_at_the_deadline_itself(self, client: Client) -> None:
        before = int(await client.unary("Cancelled")(b""))
        await failure(client.unary("Sleep")(b"10", timeout=0.2))
        await asyncio.sleep(0.3)
        assert int(await client.unary("Cancelled")(b"")) == before + 1

    async def test_a_cancelled_call_cancels_its_handler(self, client: Client) -> None:
        before = int(await client.unary("Cancelled")(b""))
        call = client.unary("Sleep")(b"10")
        await asyncio.sleep(0.2)
        call.cancel()
        async with asyncio.timeout(2):
            while int(await client.unary("Cancelled")(b"")) != before + 1:
                await asyncio.sleep(0.02)

    async def test_rich_errors(self, client: Client) -> None:
        error = await failure(client.unary("Fail")(b"rich"))
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "naïve 100% détails\n")
        raw = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
        info = ErrorInfo()
        Status.FromString(raw).details[0].Unpack(info)
        assert (info.reason, info.metadata) == ("BECAUSE", {"k": "v"})

    async def test_a_status_that_is_set_and_not_raised(self, client: Client) -> None:
        error = await failure(client.unary("Fail")(b"code"))
        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "set, not raised")

    async def test_an_unexpected_error_is_internal_and_says_nothing(self, client: Client) -> None:
        error = await failure(client.unary("Fail")(b"unexpected"))
        assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")

    async def test_an_unknown_method_is_unimplemented(self, client: Client) -> None:
        assert (await failure(client.unary("Nope")(b""))).code() is grpc.StatusCode.UNIMPLEMENTED

    async def test_compressed_requests_and_responses(self, ports: tuple[int, int]) -> None:
        client = Client(ports[0], compression=grpc.Compression.Gzip)
        assert await client.unary("Echo")(b"z" * 50_000) == b"z" * 50_000
        assert len([message async for message in client.stream("Count")(b"3")]) == 3
        await client.channel.close()

    async def test_oversized_messages_are_resource_exhausted(self, client: Client, ports: tuple[int, int]) -> None:
        assert await client.unary("Echo")(b"a" * 64 * 1024) == b"a" * 64 * 1024
        error = await failure(client.unary("Echo")(b"a" * (64 * 1024 + 1)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        bomb = Client(ports[0], compression=grpc.Compression.Gzip)
        error = await failure(bomb.unary("Echo")(b"\0" * 4_000_000))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await bomb.channel.close()
        assert await client.unary("Echo")(b"still there") == b"still there"

    async def test_many_calls_at_once_on_one_connection(self, client: Client) -> None:
        bodies = [str(number).encode() for number in range(500)]
        assert await asyncio.gather(*(client.unary("Echo")(body) for body in bodies)) == bodies


class TestMalformedFrames:
    """Straight on HTTP/2, past any gRPC client."""

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"", grpc.StatusCode.INTERNAL),
            (b"\0\0", grpc.StatusCode.INTERNAL),
            (b"\0\0\0\0\x05abc", grpc.StatusCode.INTERNAL),
            (b"\0\0\0\0\x01abc", grpc.StatusCode.INTERNAL),
            (b"\x07\0\0\0\x01a", grpc.StatusCode.INTERNAL),
            (b"\x01\0\0\0\x01a", grpc.StatusCode.UNIMPLEMENTED),
            (b"\0\xff\xff\xff\xffa", grpc.StatusCode.RESOURCE_EXHAUSTED),
        ],
    )
    async def test_is_a_status_and_no_hang(self, ports: tuple[int, int], body: bytes, code: grpc.StatusCode) -> None:
        headers = {"content-type": "application/grpc", "te": "trailers"}
        url = f"http://127.0.0.1:{ports[0]}/{SERVICE}/Echo"
        async with httpx.AsyncClient(http1=False, http2=True, timeout=5) as http:
            response = await http.post(url, content=body, headers=headers)
            assert response.headers["grpc-status"] == str(code.value[0])
            corrupt = await http.post(url, content=b"\x01\0\0\0\x03abc", headers={**headers, "grpc-encoding": "gzip"})
            assert corrupt.headers["grpc-status"] == str(grpc.StatusCode.INTERNAL.value[0])

    async def test_what_is_not_grpc_is_refused_as_http(self, ports: tuple[int, int]) -> None:
        url = f"http://127.0.0.1:{ports[0]}/{SERVICE}/Echo"
        async with httpx.AsyncClient(http1=False, http2=True, timeout=5) as http:
            assert (
                await http.post(url, content=b"{}", headers={"content-type": "application/json"})
            ).status_code == 415
            assert (await http.get(url)).status_code == 405


def load_handlers() -> dict[str, Any]:
    # The application module imports only what exists outside of Envoy; the channel inside it is never called here.
    spec = importlib.util.spec_from_file_location("interop_app", APPS / "interop_app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handlers: dict[str, Any] = module.handlers()
    return handlers


class TestOurChannelWithGrpciosServer:
    @pytest.fixture
    async def outward(self, ports: tuple[int, int]) -> AsyncIterator[Any]:
        """Call grpcio's server through the application inside Envoy."""
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", 256 * 1024)])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, load_handlers()),))
        server.add_insecure_port(f"127.0.0.1:{ports[1]}")
        await server.start()

        async def call(method: str, argument: str, seconds: float = 5) -> dict[str, Any]:
            async with httpx.AsyncClient(http1=False, http2=True, timeout=10) as http:
                url = f"http://127.0.0.1:{ports[0]}/call/{method}/{argument}/{seconds}"
                answer: dict[str, Any] = (await http.get(url)).json()
                return answer

        # The cluster finds its endpoint again once the port listens.
        async with asyncio.timeout(10):
            while (await call("Echo", "1")).get("bytes") != 1:
                await asyncio.sleep(0.05)
        yield call
        await server.stop(None)

    async def test_unary(self, outward: Any) -> None:
        assert await outward("Echo", "5") == {"bytes": 5}
        assert await outward("Echo", "200000") == {"bytes": 200_000}

    async def test_compressed(self, outward: Any) -> None:
        assert await outward("Echo", "50000g") == {"bytes": 50_000}

    async def test_streaming(self, outward: Any) -> None:
        assert await outward("Count", "20") == {"messages": 20}
        assert await outward("Count", "0") == {"messages": 0}
        failed = await outward("Count", "3!")
        assert (failed["messages"], failed["code"]) == (3, "DATA_LOSS")

    async def test_deadline(self, outward: Any) -> None:
        assert (await outward("Sleep", "5", 0.3))["code"] == "DEADLINE_EXCEEDED"

    async def test_rich_errors(self, outward: Any) -> None:
        failed = await outward("Fail", "rich")
        assert (failed["code"], failed["reason"]) == ("FAILED_PRECONDITION", "BECAUSE")
        assert failed["details"] == "naïve 100% détails\n"

    async def test_an_oversized_message(self, outward: Any) -> None:
        assert (await outward("Echo", "300000"))["code"] == "RESOURCE_EXHAUSTED"

    async def test_an_unknown_method(self, outward: Any) -> None:
        assert (await outward("Nope", "x"))["code"] == "UNIMPLEMENTED"


async def test_a_peer_that_is_away_is_unavailable(ports: tuple[int, int]) -> None:
    """Envoy answers for it: trailers-only, with the status in the headers."""
    with closing(socket.socket()) as probe:
        probe.settimeout(0.2)
        assert probe.connect_ex(("127.0.0.1", ports[1])) != 0
    async with httpx.AsyncClient(http1=False, http2=True, timeout=10) as http:
        answer = (await http.get(f"http://127.0.0.1:{ports[0]}/call/Echo/1/2")).json()
    assert answer["code"] == "UNAVAILABLE"
