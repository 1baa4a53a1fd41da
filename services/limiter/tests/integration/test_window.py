from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

import pytest
from chassis.valkey import PipelinedClient
from limiter.window import SlidingWindow

from conftest import Platform
from devstack import services


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[PipelinedClient]:
    made = PipelinedClient(services.valkey_url(platform.layout, platform.secrets, "limiter"))
    yield made
    await made.close()


@pytest.fixture
def name() -> str:
    return f"test:{uuid.uuid4()}"


async def test_so_many_pass_and_no_more(client: PipelinedClient, name: str) -> None:
    window = SlidingWindow(client)
    decisions = [await window.count(name, 5, 60) for _ in range(8)]
    assert [d.allowed for d in decisions] == [True] * 5 + [False] * 3
    assert [d.remaining for d in decisions] == [4, 3, 2, 1, 0, 0, 0, 0]
    assert all(0 < d.reset <= 63 for d in decisions)
    # Another name is counted for itself.
    assert (await window.count(f"{name}-other", 5, 60)).remaining == 4


async def test_of_any_number_at_once_exactly_the_limit_passes(client: PipelinedClient, name: str) -> None:
    window = SlidingWindow(client)
    decisions = await asyncio.gather(*(window.count(name, 40, 60) for _ in range(200)))
    assert sum(d.allowed for d in decisions) == 40


async def test_no_window_wherever_it_begins_holds_more_than_the_limit(client: PipelinedClient, name: str) -> None:
    window = SlidingWindow(client)
    passed: list[float] = []
    end = time.monotonic() + 3.3
    while time.monotonic() < end:
        before = time.monotonic()
        if (await window.count(name, 10, 1)).allowed:
            passed.append(before)
    # What was allowed at all comes near the limit: three windows and the burst at the start.
    assert 28 <= len(passed) <= 43
    for first in passed:
        assert sum(first <= at < first + 0.98 for at in passed) <= 10


async def test_who_waits_as_told_gets_through(client: PipelinedClient, name: str) -> None:
    window = SlidingWindow(client)
    for _ in range(3):
        assert (await window.count(name, 3, 1)).allowed
    for _ in range(3):
        refused = await window.count(name, 3, 1)
        assert not refused.allowed
        await asyncio.sleep(refused.reset + 0.005)
        assert (await window.count(name, 3, 1)).allowed
        # Use up what has become free.
        while (await window.count(name, 3, 1)).allowed:
            pass


async def test_a_counter_is_small_and_goes_away(client: PipelinedClient, name: str, platform: Platform) -> None:
    window = SlidingWindow(client)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        await window.count(name, 1000, 0.5)
    # As an administrator: the limiter may only count.
    async with platform.valkey() as admin:
        assert await admin.hlen(f"limit:{name}") <= 22
        await asyncio.sleep(0.7)
        assert not await admin.exists(f"limit:{name}")
