"""What serves no request calls another service, too: over its own Envoy's egress socket, into the same clusters."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import inside
import pytest
from contracts.order.v1.catalog_pb2 import GetProductRequest
from contracts.order.v1.catalog_pb2_grpc import CatalogServiceStub
from contracts.order.v1.order_pb2 import GetOrderRequest
from contracts.order.v1.order_pb2_grpc import OrderServiceStub
from devstack.options import Options
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from conftest import Platform

APPLICATION = Path(__file__).parent / "apps" / "egress_app.py"


def channel_to(stack: Platform, authority: str) -> grpc.aio.Channel:
    """Over the BFF's socket, as whoever runs it."""
    socket = stack.layout.run / "bff.egress.sock"
    return grpc.aio.insecure_channel(f"unix:{socket}", options=(("grpc.default_authority", authority),))


async def test_a_worker_calls_another_service_without_a_request(stack: Platform) -> None:
    with inside.another(stack, "bff", Options(), application=APPLICATION) as own:
        ops = f"http://127.0.0.1:{own.port('bff_ops')}"
        async with asyncio.timeout(30):
            while 'backend_egress_test{found="done"}' not in (found := await inside.metrics(ops, "/metrics")):
                await asyncio.sleep(0.1)
        envoy = await inside.metrics(ops)
    said = [
        name.removeprefix("backend_egress_test{found=").removesuffix("}")
        for name in found
        if "backend_egress_test" in name
    ]
    assert {json.loads(text) for text in said} == {
        "user: SERVING",
        "order: SERVING",
        "limiter: INTERNAL, PERMISSION_DENIED: bff calls user, order, notification and nobody else",
        # There is no request for it to belong to: what the socket is for.
        "user, as a request does: RuntimeError",
        "done",
    }
    assert found['backend_worker_restarts_total{worker="asking"}'] == 0
    # Nobody has called it, and what it called was asked over mutual TLS.
    assert envoy['envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="ingress"}'] == 0
    assert envoy['envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="egress"}'] == 3
    for called in ("user", "order"):
        assert envoy[f'envoy_cluster_ssl_handshake{{envoy_cluster_name="{called}"}}'] > 0


@pytest.mark.parametrize("authority", ["limiter", "edge", "bff", "user.example", "order:80"])
async def test_whoever_is_no_upstream_is_refused(stack: Platform, authority: str) -> None:
    async with channel_to(stack, authority) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await HealthStub(channel).Check(HealthCheckRequest(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert caught.value.details() == "bff calls user, order, notification and nobody else"


async def test_the_callee_decides_as_for_any_call(stack: Platform) -> None:
    """It sees the BFF's certificate, and no token: health is for its callers, an order is for a person."""
    async with channel_to(stack, "order") as channel:
        answer = await HealthStub(channel).Check(HealthCheckRequest(), timeout=5)
        assert answer.status == HealthCheckResponse.SERVING
        request = GetOrderRequest(id="01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b21")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await OrderServiceStub(channel).GetOrder(request, timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        reflection: Any = channel.unary_unary("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reflection(b"", timeout=5)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_both_envoys_log_it_under_one_id(stack: Platform) -> None:
    async with channel_to(stack, "order") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await CatalogServiceStub(channel).GetProduct(GetProductRequest(), timeout=5)
    async with asyncio.timeout(10):
        while not (own := _lines(stack, "bff", "/order.v1.CatalogService/GetProduct")):
            await asyncio.sleep(0.1)
        request_id = own[-1]["request_id"]
        assert request_id
        while not (theirs := _lines(stack, "order*", request_id)):
            await asyncio.sleep(0.1)
    assert theirs[0]["peer"] == "spiffe://backend.local/bff"


def _lines(stack: Platform, process: str, part: str) -> list[dict[str, Any]]:
    """What Envoy logged of requests of which this is a part."""
    logs = [log.read_text(encoding="utf-8") for log in stack.layout.logs.glob(f"{process}.log")]
    found = [json.loads(line) for text in logs for line in text.splitlines() if part in line]
    return [line for line in found if line["event"] == "request"]


def test_the_socket_is_its_owners_and_only_who_calls_has_one(stack: Platform) -> None:
    sockets = {path.name: path for path in stack.layout.run.glob("*.egress.sock") if "-at-" not in path.name}
    assert set(sockets) == {"bff.egress.sock", "notification.egress.sock"}
    assert sockets["bff.egress.sock"].stat().st_mode & 0o777 == 0o600
