from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from chassis.valkey import PipelinedClient
from limiter.leases import Leases

from conftest import Platform
from devstack import services


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[PipelinedClient]:
    made = PipelinedClient(services.valkey_url(platform.layout, platform.secrets, "limiter"))
    yield made
    await made.close()


@pytest.fixture
def edge() -> str:
    return uuid.uuid4().hex


ALL = 340


async def taken(leases: Leases, edge: str, address: str) -> list[str]:
    """All that an address gets; asked for at once."""
    got = await asyncio.gather(*(leases.take(edge, address, ALL) for _ in range(ALL // 10)))
    return [lease for lease in got if lease is not None]


async def test_an_address_holds_a_sixteenth_of_what_is_free_and_no_more(client: PipelinedClient, edge: str) -> None:
    leases = Leases(client, 60)
    assert len(await taken(leases, edge, "192.0.2.1")) == 20
    # Less for the next one, and always something; another edge is another matter.
    assert len(await taken(leases, edge, "192.0.2.2")) == 18
    assert len(await taken(leases, f"{edge}0", "192.0.2.1")) == 20


@pytest.mark.parametrize("hogs", [5, 20, 40])
async def test_there_is_a_share_for_who_has_none(client: PipelinedClient, edge: str, hogs: int) -> None:
    leases = Leases(client, 60)
    for number in range(hogs):
        await taken(leases, edge, f"192.0.2.{number}")
    for number in range(10):
        assert await leases.take(edge, f"198.51.100.{number}", ALL), number


async def test_all_are_given_and_no_more(client: PipelinedClient, edge: str) -> None:
    leases = Leases(client, 60)
    given = await asyncio.gather(*(leases.take(edge, f"192.0.2.{number}", 90) for number in range(100)))
    assert sum(lease is not None for lease in given) == 90


async def test_what_is_given_back_can_be_had_again(client: PipelinedClient, edge: str) -> None:
    leases = Leases(client, 60)
    for _ in range(5):
        mine = await taken(leases, edge, "192.0.2.1")
        assert len(mine) == 20
        await asyncio.gather(*(leases.give_back(lease) for lease in mine))


async def test_a_lease_that_never_comes_back_ends_with_the_window(
    client: PipelinedClient, edge: str, platform: Platform
) -> None:
    leases = Leases(client, 1)
    mine = await taken(leases, edge, "192.0.2.1")
    await asyncio.sleep(1.3)
    assert len(await taken(leases, edge, "192.0.2.1")) == len(mine)
    # One that comes back late takes nothing from anybody.
    await asyncio.gather(*(leases.give_back(lease) for lease in mine))
    assert len(await taken(leases, edge, "192.0.2.1")) == 0
    await asyncio.sleep(1.3)
    async with platform.valkey() as admin:
        assert not await admin.exists(f"limit:leases:{edge}", f"limit:leases:{edge}:192.0.2.1")


@pytest.mark.parametrize("lease", ["", "x", "1 2", "a b c"])
async def test_what_is_no_lease_is_refused(client: PipelinedClient, lease: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which one is not the point
        await Leases(client, 60).give_back(lease)
