"""Envoy's rate limit service protocol."""

from __future__ import annotations

import math
from typing import Any

from chassis.errors import ServiceError
from chassis.valkey import ValkeyError
from contracts.envoy.service.ratelimit.v3 import rls_pb2
from contracts.envoy.service.ratelimit.v3.rls_pb2_grpc import RateLimitServiceServicer
from google.protobuf.duration_pb2 import Duration

from limiter.limits import Limit, Limits
from limiter.window import Decision, SlidingWindow

_Response = rls_pb2.RateLimitResponse


class RateLimitHandlers(RateLimitServiceServicer):
    """Answers every edge."""

    def __init__(self, limits: Limits, window: SlidingWindow) -> None:
        self._limits = limits
        self._window = window

    async def ShouldRateLimit(self, request: rls_pb2.RateLimitRequest, _context: Any) -> rls_pb2.RateLimitResponse:
        """OVER_LIMIT when one descriptor is.

        Raises:
            ServiceError: UNAVAILABLE when Valkey cannot be reached: the edge then lets the request pass, down to the
                floor that it holds itself (ADR 0010).
        """
        overall = _Response.OK
        statuses = []
        for descriptor in request.descriptors:
            entries = {entry.key: entry.value for entry in descriptor.entries}
            name, limit = self._limits.find(request.domain, entries)
            try:
                decision = await self._window.count(name, limit.requests, limit.seconds)
            except (ValkeyError, OSError) as error:
                raise ServiceError("UNAVAILABLE") from error
            if not decision.allowed:
                overall = _Response.OVER_LIMIT
            statuses.append(_status(limit, decision))
        return _Response(overall_code=overall, statuses=statuses)


def _status(limit: Limit, decision: Decision) -> rls_pb2.RateLimitResponse.DescriptorStatus:
    return _Response.DescriptorStatus(
        code=_Response.OK if decision.allowed else _Response.OVER_LIMIT,
        current_limit=_Response.RateLimit(requests_per_unit=limit.requests, unit=_Response.RateLimit.MINUTE),
        limit_remaining=decision.remaining,
        # Whole seconds is what the headers can say: later rather than too early.
        duration_until_reset=Duration(seconds=max(1, math.ceil(decision.reset))),
    )
