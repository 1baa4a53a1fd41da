from __future__ import annotations

import asyncio

import pytest
from devstack.steps import Step, take


class Record:
    """Steps that are taken, in order; each lasts until it is let go on, or fails at once."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    def step(self, name: str, *needs: str, fails: bool = False) -> Step:
        self.gates[name] = asyncio.Event()

        async def do() -> None:
            self.begun.append(name)
            if fails:
                raise RuntimeError(name)
            await self.gates[name].wait()

        return Step(do, needs)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_each_step_begins_when_what_it_needs_is_done_and_none_waits_for_another() -> None:
    record = Record()
    steps = {name: record.step(name) for name in ("database", "cache")}
    steps |= {"migrations": record.step("migrations", "database"), "order": record.step("order", "migrations", "cache")}
    taking = asyncio.create_task(take(steps))
    for done, begun in (
        ("", ["database", "cache"]),
        ("database", ["migrations"]),
        ("migrations", []),
        ("cache", ["order"]),
    ):
        record.begun.clear()
        if done:
            record.gates[done].set()
        await settled()
        assert record.begun == begun
    record.gates["order"].set()
    await taking


async def test_every_failure_is_told_and_nothing_begins_after_the_first() -> None:
    record = Record()
    steps = {
        "user": record.step("user", fails=True),
        "order": record.step("order", fails=True),
        "bff": record.step("bff"),
        "edge": record.step("edge", "user"),
        "late": record.step("late", "bff"),
    }
    taking = asyncio.create_task(take(steps))
    await settled()
    record.gates["bff"].set()
    with pytest.raises(ExceptionGroup) as failure:
        await taking
    assert [str(error) for error in failure.value.exceptions] == ["user", "order"]
    assert record.begun == ["user", "order", "bff"]


async def test_a_start_that_is_ended_ends_its_steps() -> None:
    record = Record()
    taking = asyncio.create_task(take({"database": record.step("database")}))
    await settled()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert len(asyncio.all_tasks()) == 1
