"""Registers a service's servicers: the contract's policy around each, health and reflection beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from chassis.admission import Admission
from chassis.grpc.methods import Context, Server
from chassis.grpc.policy import ContractServer
from chassis.tokens import TokenVerifier


class _Health(cast("Any", health).aio.HealthServicer):  # type: ignore[misc]
    """Check, as Envoy asks it, and not Watch.

    A stream without an end would hold up every drain, and those who would watch ask again when they are told so
    (grpc.health.v1: treat UNIMPLEMENTED as "no health checks by stream").
    """

    async def Watch(
        self, _request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "health is not streamed; call Check")
        yield  # type: ignore[unreachable] # What makes this a stream.


@contextmanager
def serve_contract(
    server: Server,
    *services: ServiceDescriptor,
    admission: Admission | None = None,
    tokens: TokenVerifier | None = None,
) -> Iterator[grpc.aio.Server]:
    """Yield where the generated `add_…Servicer_to_server` register; bind the contract at the end of the block.

    Args:
        server: a `GrpcApplication`, or a `grpc.aio.Server`.
        services: what the contract says this process serves.
        admission: the process's lanes; without, some of its own.
        tokens: verifies the callers of methods that need one.

    Raises:
        ContractMismatchError: naming each method without a handler or an access rule.
    """
    contract = ContractServer(server, services, tokens, admission or Admission())
    yield cast("grpc.aio.Server", contract)
    contract.check()
    servicer = _Health()
    # The standard overall and per-service entries; readiness proper is the ops listener's.
    for name in ("", *(service.full_name for service in services)):
        servicer._server_status[name] = health_pb2.HealthCheckResponse.SERVING  # noqa: SLF001 - its setter is async
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    names = [*(service.full_name for service in services), health.SERVICE_NAME, reflection.SERVICE_NAME]
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(ReflectionServicer(names), server)
