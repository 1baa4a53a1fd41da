"""Health and reflection, as every service has them: on our server and on grpcio's own."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import grpc
from chassis.grpc import framing
from chassis.grpc.server import GrpcApplication
from chassis.grpc.serving import serve_contract
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SERVING = health_pb2.HealthCheckResponse.SERVING


async def _statuses(application: GrpcApplication, path: str) -> list[bytes]:
    """Every grpc-status that is sent for an empty request."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": framing.encode_frame(b""), "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/grpc")]
    await application({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send)
    return [value for message in sent for name, value in message.get("headers", []) if name == b"grpc-status"]


async def test_our_server_checks_health_and_says_that_it_streams_none() -> None:
    application = GrpcApplication()
    with serve_contract(application):
        pass
    assert await _statuses(application, "/grpc.health.v1.Health/Check") == [b"0"]
    assert await _statuses(application, "/grpc.health.v1.Health/Watch") == [b"12"]


async def test_so_does_grpcios_own_to_a_grpcio_client() -> None:
    server = grpc.aio.server()
    with serve_contract(server):
        pass
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            assert (await stub.Check(health_pb2.HealthCheckRequest())).status == _SERVING
            try:
                async for _ in stub.Watch(health_pb2.HealthCheckRequest()):
                    raise AssertionError("nothing is streamed")
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    finally:
        await server.stop(None)
