"""What the Envoy host does to the event loop; how it is called and what becomes of its answers.

The host itself is under every test through a running stack.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvloop
from chassis.envoy_bootstrap import EGRESS_SOCKET, Bootstrap, Listener, egress_socket
from chassis.grpc.framing import encode_frame
from chassis.host import accept_late_answers, egress_channel, upstream_channel
from pyqwest import ReadError

Answering = Callable[[Any], object]


def complaints(answer: Callable[[Answering], Answering]) -> list[str]:
    """What the loop reports when waits that were given up are answered nevertheless."""
    found: list[str] = []

    async def give_up_and_be_answered() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: found.append(type(context["exception"]).__name__))
        accept_late_answers(loop)
        result, failure = loop.create_future(), loop.create_future()
        result.cancel()
        failure.cancel()
        loop.call_soon(answer(result.set_result), "an answer")
        loop.call_soon(answer(failure.set_exception), ConnectionError("reset"))
        await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(give_up_and_be_answered())
    return found


def test_an_answer_that_nobody_waits_for_is_no_error() -> None:
    # As the host answers: native code, called by the loop.
    assert complaints(lambda native: native) == []


def test_the_same_mistake_of_ours_is_one() -> None:
    assert complaints(lambda native: lambda value: native(value)) == ["InvalidStateError"] * 2  # noqa: PLW0108


def test_any_other_error_is_reported_as_before() -> None:
    assert complaints(lambda _: partial(int)) == ["ValueError", "TypeError"]


def test_the_default_report_stays(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        loop = asyncio.get_running_loop()
        accept_late_answers(loop)
        loop.call_soon(int, "no number")
        await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(fail())
    assert "Exception in callback" in caplog.text


class Answer:
    """An answer of the host's: parts, and whether it was given up."""

    def __init__(self, status: int, *parts: bytes | Exception | None, **headers: str) -> None:
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.trailers = {"grpc-status": "0"}
        self.closed = False
        self.content = self._read(parts)

    async def _read(self, parts: tuple[bytes | Exception | None, ...]) -> AsyncIterator[bytes]:
        for part in parts:
            if part is None:
                await asyncio.Event().wait()
            elif isinstance(part, Exception):
                raise part
            else:
                yield part

    async def aclose(self) -> None:
        self.closed = True


class Host:
    """What pyvoy's transport is within Envoy."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[Answer]] = []
        self.requests: list[Any] = []

    def execute(self, request: Any) -> asyncio.Future[Answer]:
        self.requests.append(request)
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    monkeypatch.setattr("chassis.host._transport", lambda _cluster, _steps: made)
    return made


def call(**options: Any) -> asyncio.Task[bytes]:
    method = upstream_channel("order").unary_unary("/s.S/Get", bytes, bytes)
    return asyncio.create_task(method(b"asked", **options))


async def outcome(task: asyncio.Task[bytes]) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await task
    return caught.value.code()


async def test_a_call_is_one_request_and_an_answer_read_to_its_end(host: Host) -> None:
    calling = call(metadata=[("x-request-id", "request-1")], timeout=2)
    await asyncio.sleep(0)
    (request,) = host.requests
    assert (request.method, request.url, request.content) == ("POST", "http://order/s.S/Get", encode_frame(b"asked"))
    assert dict(request.headers.items()).items() >= {"x-request-id": "request-1", "grpc-timeout": "2000m"}.items()
    answer = Answer(200, encode_frame(b"one")[:4], encode_frame(b"one")[4:])
    host.answers[0].set_result(answer)
    assert (await calling, answer.closed) == (b"one", False)


async def test_an_answer_of_which_nobody_has_seen_anything_is_closed(host: Host) -> None:
    calling = call()
    await asyncio.sleep(0)
    answer = Answer(200, encode_frame(b"one"))
    # In this order: the answer is there, and its reader is cancelled before it runs.
    host.answers[0].set_result(answer)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert answer.closed


@pytest.mark.parametrize("parts", [(None,), (b"\x00\x00", None)])
async def test_an_answer_is_closed_that_is_cancelled_while_it_is_read(host: Host, parts: tuple[Any, ...]) -> None:
    calling = call()
    await asyncio.sleep(0)
    answer = Answer(200, *parts)
    host.answers[0].set_result(answer)
    for _ in range(5):
        await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert answer.closed


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(503, b"no healthy upstream"), grpc.StatusCode.UNAVAILABLE),
        (Answer(200, b"and a body", grpc_status="5"), grpc.StatusCode.NOT_FOUND),
        (Answer(200, b"\x00" * 5_000_000), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (Answer(200, b"\x00\x00", ReadError("reset")), grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_an_answer_is_closed_that_is_no_use(host: Host, answer: Answer, code: grpc.StatusCode) -> None:
    calling = call()
    await asyncio.sleep(0)
    host.answers[0].set_result(answer)
    assert await outcome(calling) is code
    assert answer.closed


@pytest.mark.parametrize("body", [b"", b"\x00\x00", encode_frame(b"one") * 2, encode_frame(b"one") + b"\x00"])
async def test_an_answer_that_is_not_one_message_is_an_error(host: Host, body: bytes) -> None:
    calling = call()
    await asyncio.sleep(0)
    host.answers[0].set_result(Answer(200, body))
    assert await outcome(calling) is grpc.StatusCode.INTERNAL


async def test_a_call_outside_of_a_request_ends_at_its_own_deadline(host: Host) -> None:
    assert await outcome(call(timeout=0.01)) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert host.answers[0].cancelled()


class TestEgress:
    def test_the_launcher_finds_the_socket_in_the_configuration(self) -> None:
        def rendered(*listeners: str) -> Bootstrap:
            found: list[Listener] = [{"name": n, "address": {"pipe": {"path": f"run/{n}"}}} for n in listeners]
            return {"admin": {"address": {"pipe": {"path": "a"}}}, "static_resources": {"listeners": found}}

        assert egress_socket(rendered("python_ops", "egress")) == "run/egress"
        assert egress_socket(rendered("python_ops")) is None

    def test_a_service_without_upstreams_is_told_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(EGRESS_SOCKET, raising=False)
        with pytest.raises(RuntimeError, match="user cannot be called: this service's row"):
            egress_channel("user")

    async def test_a_call_waits_until_envoy_listens(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Workers begin before it does."""
        monkeypatch.setenv(EGRESS_SOCKET, str(tmp_path / "s"))
        async with egress_channel("user") as channel:
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Echo/Echo")
            call = method(b"hello")
            await asyncio.sleep(0.3)
            assert not call.done()
            server = grpc.aio.server()
            echo: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Echo": grpc.unary_unary_rpc_method_handler(_echo)}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", echo),))
            server.add_insecure_port(f"unix:{tmp_path / 's'}")
            await server.start()
            assert await asyncio.wait_for(call, 10) == b"hello"
            await server.stop(None)


async def _echo(request: bytes, _context: Any) -> bytes:
    return request
