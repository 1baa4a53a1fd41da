from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from chassis.errors import ServiceError
from chassis.metrics.families import FAMILIES, Counter
from order.service.sweep import Sweep
from structlog.testing import capture_logs


class UseCases:
    """Everything the sweep drives: what there is to expire cannot be, everything else is done."""

    def __init__(self, *, hangs: bool, error: Exception | None = None) -> None:
        self.hangs = hangs
        self.error = error or ConnectionError("the database has gone")
        self.done: list[str] = []

    async def expire(self) -> int:
        if self.hangs:
            await asyncio.Event().wait()
        raise self.error

    async def settle_stuck(self, _: timedelta) -> int:
        self.done.append("settled")
        return 1

    async def finish_due(self) -> int:
        self.done.append("finished")
        return 0

    async def fill_search_keys(self) -> int:
        self.done.append("filled")
        return 0


@asynccontextmanager
async def running(fake: Any) -> AsyncIterator[Sweep]:
    sweep = Sweep(
        orders=fake,
        payments=fake,
        refunds=fake,
        catalog=fake,
        database=fake,
        now=lambda: datetime.now(UTC),
        interval=0.001,
        key_retention=timedelta(hours=1),
    )
    task = asyncio.create_task(sweep.run())
    try:
        async with asyncio.timeout(10):
            yield sweep
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_step_that_fails_or_waits_for_ever_keeps_no_other_from_its_turns(*, hangs: bool) -> None:
    fake = UseCases(hangs=hangs)
    async with running(fake):
        while min(map(fake.done.count, ("settled", "finished", "filled"))) < 2:
            await asyncio.sleep(0.001)


async def test_a_step_that_fails_is_counted() -> None:
    failures = FAMILIES["backend_sweep_failures_total"]
    assert isinstance(failures, Counter)
    before = failures.count("orders expired")
    async with running(UseCases(hangs=False)):
        while failures.count("orders expired") < before + 2:
            await asyncio.sleep(0.001)
    assert failures.count("refunds finished") == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ServiceError("UNAVAILABLE"), ("warning", "sweep put off", None)),
        (ServiceError("DEADLINE_EXCEEDED"), ("warning", "sweep put off", None)),
        (ServiceError("INTERNAL"), ("error", "sweep failed", True)),
        (ValueError("a fault of ours"), ("error", "sweep failed", True)),
    ],
)
async def test_what_is_down_is_a_line_and_what_is_wrong_a_stack(
    error: Exception, expected: tuple[str, str, bool | None]
) -> None:
    with capture_logs() as lines:
        async with running(UseCases(hangs=False, error=error)):
            while not any(line.get("step") == "orders expired" for line in lines):
                await asyncio.sleep(0.001)
    line = next(line for line in lines if line.get("step") == "orders expired")
    assert (line["log_level"], line["event"], line.get("exc_info")) == expected
