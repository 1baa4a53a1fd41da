"""Hosted by test_egress.py in an Envoy of the BFF's: a worker that calls, and nothing that serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from chassis.admission import Admission
from chassis.errors import ServiceError
from chassis.grpc.peer import Channel, Peer
from chassis.host import egress_channel, upstream_channel
from chassis.lifecycle import Composition, ServiceProcess
from chassis.metrics.families import Reading
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from starlette.types import Receive, Scope, Send

FOUND = Reading("backend_egress_test", "What the worker has found", "found")


async def _is_serving(channel: Channel) -> str:
    health = Peer(channel).stub(HealthStub)
    try:
        async with asyncio.timeout(10):
            answer = await health.Check(HealthCheckRequest())
    except ServiceError as error:
        refused = error.__cause__
        assert isinstance(refused, grpc.aio.AioRpcError)
        return f"{error.reason}, {refused.code().name}: {refused.details()}"
    except Exception as error:
        return type(error).__name__
    return str(HealthCheckResponse.ServingStatus.Name(answer.status))


async def _ask() -> None:
    for name in ("user", "order", "limiter"):
        async with egress_channel(name) as channel:
            FOUND.tell(1, f"{name}: {await _is_serving(channel)}")
    FOUND.tell(1, f"user, as a request does: {await _is_serving(upstream_channel('user'))}")
    FOUND.tell(1, "done")
    await asyncio.Event().wait()


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise AssertionError("nobody is to call this")


@asynccontextmanager
async def compose() -> AsyncIterator[Composition]:
    """The worker, which tells what it found by the metrics."""
    yield Composition(_nothing, Admission(), workers={"asking": _ask})


app = ServiceProcess(compose)
ops = app.ops
