from __future__ import annotations

import asyncio

import pytest
from chassis.errors import ServiceError
from chassis.valkey import ValkeyConnectionError
from contracts.bff.v1.operations import OPERATIONS
from contracts.envoy.service.ratelimit.v3 import rls_pb2
from limiter import handlers
from limiter.handlers import RateLimitHandlers
from limiter.leases import Leases
from limiter.limits import Limit, Limits
from limiter.window import Decision, SlidingWindow


class HangingLeases(Leases):
    """Of a Valkey that answers when `answers` is set, and otherwise says after a while that it does not."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = False

    async def take(self, edge: str, address: str, connections: int) -> str | None:
        self.asked += 1
        await asyncio.sleep(0.01)
        if not self.answers:
            raise ValkeyConnectionError("Valkey does not answer")
        return f"1 {edge} {address}"


class Everything(SlidingWindow):
    """Allows all."""

    def __init__(self) -> None: ...

    async def count(self, name: str, requests: int, seconds: float) -> Decision:
        return Decision(allowed=True, remaining=1, reset=1)


def _connection() -> rls_pb2.RateLimitRequest:
    request = rls_pb2.RateLimitRequest(domain="connections")
    entries = request.descriptors.add().entries
    for key, value in {"remote_address": "192.0.2.1", "connections": "4096", "edge": "e1"}.items():
        entries.add(key=key, value=value)
    return request


async def test_one_connection_at_a_time_waits_for_a_valkey_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line behind it at the edge would be let in as slowly as that one hears of it."""
    now = 100.0
    monkeypatch.setattr(handlers, "monotonic", lambda: now)
    leases = HangingLeases()
    asked = RateLimitHandlers(Limits(OPERATIONS, connections=Limit(1200, 300), scale=1), Everything(), leases)

    async def let_in() -> bool:
        try:
            answer = await asked.ShouldRateLimit(_connection(), None)
        except ServiceError as error:
            assert error.reason == "UNAVAILABLE"
            return True
        return answer.dynamic_metadata["lease"] != "1 e1 192.0.2.1"

    assert await let_in()
    assert all(await asyncio.gather(*(let_in() for _ in range(50))))
    assert leases.asked == 1
    # A second later one finds out that it hangs still; and when it does no longer, everybody is counted again.
    now += 1.1
    assert all(await asyncio.gather(*(let_in() for _ in range(50))))
    assert leases.asked == 2
    leases.answers = True
    now += 1.1
    assert sum(await asyncio.gather(*(let_in() for _ in range(50)))) == 49
    assert not any(await asyncio.gather(*(let_in() for _ in range(50))))
