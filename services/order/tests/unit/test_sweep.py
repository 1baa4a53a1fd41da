from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from order_service.service.sweep import Sweep


class UseCases:
    """Everything the sweep drives: what there is to expire cannot be, everything else is done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def expire(self) -> int:
        raise ConnectionError("the database has gone")

    async def settle_stuck(self, _: timedelta) -> int:
        self.done.append("settled")
        return 1

    async def finish_due(self) -> int:
        self.done.append("finished")
        return 0

    async def fill_search_keys(self) -> int:
        self.done.append("filled")
        return 0


async def test_a_step_that_fails_is_counted_and_keeps_no_other_from_its_turn() -> None:
    fake: Any = UseCases()
    sweep = Sweep(
        orders=fake,
        payments=fake,
        refunds=fake,
        catalog=fake,
        database=fake,
        now=lambda: datetime.now(UTC),
        interval=1,
        key_retention=timedelta(hours=1),
    )
    assert "{" not in sweep.metrics()
    await sweep.once()
    await sweep.once()
    assert fake.done == ["settled", "finished", "filled"] * 2
    assert 'backend_sweep_failures_total{step="orders expired"} 2\n' in sweep.metrics()
