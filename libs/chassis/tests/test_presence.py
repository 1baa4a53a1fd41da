"""What a caller who has gone may still cost: no slot, no call, no retry."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import grpc
import pytest
from chassis import context
from chassis.admission import Admission
from chassis.errors import ServiceError
from chassis.grpc.channel import Channel, TransportResponse, UnaryCall
from chassis.grpc.peer import RetryBudget, UnaryMethod
from chassis.http.application import HttpApplication
from chassis.presence import CallerGoneError, Presence
from contract_runtime.operation import Operation, RateLimit
from starlette.responses import Response


class Peer:
    """A client whose request has no body; asked, the host says at once whether it is still there, as pyvoy does."""

    def __init__(self) -> None:
        self.gone = False
        self.sent: list[MutableMapping[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.disconnect"} if self.gone else {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)


class Things:
    """A handler that waits for what never comes."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0

    async def get_thing(self) -> Response:
        self.begun += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        raise AssertionError("unreachable")


GET_THING = Operation(
    id="getThing", handler="get_thing", method="GET", path="/thing", permission=None, anonymous=True, success=200,
    media_type="application/json", timeout=60.0, rate_limit=RateLimit(1, 1, False), operation_class="read",
)  # fmt: skip
SCOPE = {"type": "http", "method": "GET", "path": "/thing", "query_string": b"", "headers": []}


async def nobody(_request: Any) -> Any: ...


@pytest.fixture
def admission() -> Admission:
    return Admission()


def application(things: object, admission: Admission) -> HttpApplication:
    return HttpApplication([GET_THING], [things], nobody, 1, admission)


async def test_who_has_gone_before_anything_was_done_takes_no_slot(admission: Admission) -> None:
    things, peer = Things(), Peer()
    peer.gone = True
    await application(things, admission)(dict(SCOPE), peer.receive, peer.send)
    assert (things.begun, admission.lane("read").admitted, peer.sent) == (0, 0, [])


async def test_who_goes_meanwhile_gives_the_slot_back(admission: Admission) -> None:
    things, peer = Things(), Peer()
    serving = asyncio.create_task(application(things, admission)(dict(SCOPE), peer.receive, peer.send))
    await asyncio.sleep(0.01)
    assert (things.begun, admission.lane("read").running) == (1, 1)
    peer.gone = True
    await asyncio.wait_for(serving, 5)
    assert (things.cancelled, admission.lane("read").running, peer.sent) == (1, 0, [])


async def test_cancelled_by_somebody_else_it_is_cancelled(admission: Admission) -> None:
    things, peer = Things(), Peer()
    serving = asyncio.create_task(application(things, admission)(dict(SCOPE), peer.receive, peer.send))
    await asyncio.sleep(0.01)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert admission.lane("read").running == 0


async def test_nothing_is_called_and_nothing_tried_again_for_who_has_gone(admission: Admission) -> None:
    calls = 0

    class Transport:
        async def post(self, *_: Any) -> TransportResponse:
            nonlocal calls
            calls += 1
            current = context.current()
            assert current is not None
            assert current.presence is not None
            await current.presence.check()
            peer.gone = True
            raise ConnectionError("the request is over")

    class Calling:
        async def get_thing(self) -> Response:
            method: UnaryCall[None, None] = Channel(Transport()).unary_unary("/s.S/Get", lambda _: b"", lambda _: None)
            with pytest.raises(ServiceError):
                repeated: UnaryMethod[None, None] = UnaryMethod("/s.S/Get", method, RetryBudget(), may_repeat=True)
                await repeated(None)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(None)
            assert caught.value.code() is grpc.StatusCode.CANCELLED
            raise CallerGoneError

    peer = Peer()
    await application(Calling(), admission)(dict(SCOPE), peer.receive, peer.send)
    # The first, its retry, which finds nobody, and the last.
    assert (calls, peer.sent) == (3, [])


async def test_the_deadline_ends_the_work_and_is_told_from_other_cancellations() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError), Presence(Peer().receive, loop.time() + 0.01) as presence:
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    # Nothing is left behind that would end what comes after.
    assert (presence.is_late, task.cancelling()) == (True, 0)
    await asyncio.sleep(0)

    async def work() -> None:
        with Presence(Peer().receive, loop.time() + 60):
            await asyncio.Event().wait()

    cancelled = asyncio.create_task(work())
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_cancelled_by_the_deadline_and_by_somebody_else_it_is_cancelled() -> None:
    loop = asyncio.get_running_loop()

    async def work() -> None:
        with Presence(Peer().receive, loop.time() + 0.01) as presence:
            try:
                await asyncio.Event().wait()
            finally:
                assert presence.is_late
                task.cancel()

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_that_ends_before_its_deadline_leaves_no_timer() -> None:
    with Presence(Peer().receive, asyncio.get_running_loop().time() + 0.01):
        pass
    await asyncio.sleep(0.03)


@pytest.mark.parametrize(("share", "timers"), [(1.0, 0), (0.5, 1)])
async def test_a_call_within_a_request_has_a_timer_of_its_own_only_when_it_has_less_time(
    share: float, timers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up: list[float | None] = []
    timeout = asyncio.timeout

    def counted(after: float | None) -> asyncio.Timeout:
        set_up.append(after)
        return timeout(after)

    monkeypatch.setattr("chassis.grpc.channel.asyncio.timeout", counted)

    class Transport:
        async def post(self, *_: Any) -> TransportResponse:
            raise ConnectionError

    now = asyncio.get_running_loop().time()
    current = context.RequestContext("request-1", deadline=now + 4 * share, timer=now + 4)
    method: UnaryCall[None, None] = Channel(Transport()).unary_unary("/s.S/Get", lambda _: b"", lambda _: None)
    with context.serving(current), pytest.raises(grpc.aio.AioRpcError):
        await method(None, timeout=current.remaining())
    assert len(set_up) == timers
    with pytest.raises(grpc.aio.AioRpcError):
        await method(None, timeout=4)
    assert len(set_up) == timers + 1, "outside of a request nothing else ends a call"
