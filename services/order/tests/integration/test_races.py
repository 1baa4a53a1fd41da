"""Every pair of transitions at once."""

from __future__ import annotations

import order_races

from conftest import Platform


async def test_races_of_every_pair_of_transitions_leave_everything_in_agreement(platform: Platform) -> None:
    """A small part of `tools/order_races.py`."""
    async with order_races.arena(platform.layout, platform.secrets) as where:
        report = await order_races.run(where, rounds=2, seed=8)
    assert report.violations == []
    assert report.rounds == 2 * len(order_races.PAIRS)
    assert {"shipped", "delivered", "cancelled", "expired", "refunded"} <= set(report.ends)
