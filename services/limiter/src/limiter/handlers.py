"""Envoy's rate limit service protocol, and how it tells which connections have ended."""

from __future__ import annotations

import asyncio
import math
from time import monotonic

from chassis.errors import ServiceError
from chassis.metrics.families import Counter
from chassis.valkey import ValkeyError
from contracts.envoy.service.ratelimit.v3 import rls_pb2
from contracts.envoy.service.ratelimit.v3.rls_pb2_grpc import RateLimitServiceServicer
from contracts.opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from contracts.opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceServicer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from limiter.leases import Leases
from limiter.limits import Limit, Limits
from limiter.window import Decision, SlidingWindow

_Response = rls_pb2.RateLimitResponse
# What one address may open over HTTP/3 in a window, as a part of all connections that an edge may have. A client that
# is refused comes over TCP instead.
_HTTP3_PART = 32
# While Valkey does not answer, one connection is let through to it in this time, to find out whether it does again.
_TRY_AGAIN_SECONDS = 1.0
_DECISIONS = Counter(
    "backend_limiter_decisions_total",
    "What edges were told: of operations, and of new connections. What has failed, they let pass",
    domain=("operations", "connections"),
    decision=("allowed", "refused", "failed"),
)


class RateLimitHandlers(RateLimitServiceServicer):
    """Answers every edge."""

    def __init__(self, limits: Limits, window: SlidingWindow, leases: Leases) -> None:
        self._limits = limits
        self._window = window
        self._leases = leases
        # Set while Valkey does not answer: until this time of the monotonic clock no connection waits for it.
        self._down_until: float | None = None

    async def ShouldRateLimit(self, request: rls_pb2.RateLimitRequest, _context: object) -> rls_pb2.RateLimitResponse:
        """OVER_LIMIT when one descriptor is.

        Raises:
            ServiceError: UNAVAILABLE when Valkey cannot be reached: the edge then lets the request pass, down to the
                floor that it holds itself (ADR 0010).
        """
        decision = "failed"
        try:
            if request.domain == "connections":
                answer = await self._connection_unless_down(request)
            else:
                answer = await self._operations(request)
            decision = "allowed" if answer.overall_code == _Response.OK else "refused"
        except (ValkeyError, OSError) as error:
            raise ServiceError("UNAVAILABLE") from error
        finally:
            _DECISIONS.add(request.domain, decision)
        return answer

    # does not pass on: hits_addend
    async def _operations(self, request: rls_pb2.RateLimitRequest) -> rls_pb2.RateLimitResponse:
        overall = _Response.OK
        statuses = []
        for descriptor in request.descriptors:
            name, limit = self._limits.find(request.domain, _entries(descriptor))
            decision = await self._window.count(name, limit.requests, limit.seconds)
            if not decision.allowed:
                overall = _Response.OVER_LIMIT
            statuses.append(_status(limit, decision))
        return _Response(overall_code=overall, statuses=statuses)

    async def _connection_unless_down(self, request: rls_pb2.RateLimitRequest) -> rls_pb2.RateLimitResponse:
        # An edge asks for few at a time and waits long (traffic.j2 of mesh/templates/policies): if each of them waited for a
        # Valkey that hangs, the line would be let in a few a second.
        if self._down_until is not None:
            now = monotonic()
            if now < self._down_until:
                raise ServiceError("UNAVAILABLE")
            self._down_until = now + _TRY_AGAIN_SECONDS
        try:
            answer = await self._connection(request)
        except (ValkeyError, OSError):
            self._down_until = monotonic() + _TRY_AGAIN_SECONDS
            raise
        self._down_until = None
        return answer

    # does not pass on: domain, hits_addend
    async def _connection(self, request: rls_pb2.RateLimitRequest) -> rls_pb2.RateLimitResponse:
        refused = _Response(overall_code=_Response.OVER_LIMIT)
        opening, limit = self._limits.opening(_entries(request.descriptors[0])), self._limits.connections
        lease, remembered = None, Struct()
        if opening.edge is None:
            part = max(1, opening.connections // _HTTP3_PART)
            if not (await self._window.count(f"http3:{opening.address}", part, limit.seconds)).allowed:
                return refused
        else:
            lease = await self._leases.take(opening.edge, opening.address, opening.connections)
            if lease is None:
                return refused
            remembered["lease"] = lease
        if (await self._window.count(f"connections:{opening.address}", limit.requests, limit.seconds)).allowed:
            return _Response(overall_code=_Response.OK, dynamic_metadata=remembered)
        if lease is not None:
            await self._leases.give_back(lease)
        return refused


class EndedHandlers(LogsServiceServicer):
    """Hears from every edge which of its connections have ended."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    async def Export(
        self, request: logs_service_pb2.ExportLogsServiceRequest, _context: object
    ) -> logs_service_pb2.ExportLogsServiceResponse:
        """Take the leases back.

        Raises:
            ServiceError: INVALID_ARGUMENT when a record is no lease; UNAVAILABLE when Valkey cannot be reached: these
                leases then end with the window in which they were given.
        """
        leases = [
            record.body.string_value
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]
        try:
            await asyncio.gather(*(self._leases.give_back(lease) for lease in leases))
        except ValueError as error:
            raise ServiceError("INVALID_ARGUMENT", "not a lease") from error
        except (ValkeyError, OSError) as error:
            raise ServiceError("UNAVAILABLE") from error
        return logs_service_pb2.ExportLogsServiceResponse()


def _entries(descriptor: rls_pb2.RateLimitDescriptor) -> dict[str, str]:
    return {entry.key: entry.value for entry in descriptor.entries}


def _status(limit: Limit, decision: Decision) -> rls_pb2.RateLimitResponse.DescriptorStatus:
    return _Response.DescriptorStatus(
        code=_Response.OK if decision.allowed else _Response.OVER_LIMIT,
        current_limit=_Response.RateLimit(requests_per_unit=limit.requests, unit=_Response.RateLimit.MINUTE),
        limit_remaining=decision.remaining,
        # Whole seconds is what the headers can say: later rather than too early.
        duration_until_reset=Duration(seconds=max(1, math.ceil(decision.reset))),
    )
