"""The order of a start: each step as soon as what it needs is done, all others at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

# After the first failure, for others that have a cause of their own, or the same one to say more about.
_GRACE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Step:
    """What is done, and which steps it needs to be done before."""

    do: Callable[[], Awaitable[None]]
    needs: tuple[str, ...] = ()


async def take(steps: Mapping[str, Step]) -> None:
    """Take all steps. After a failure nothing more is begun, and what is under way may fail for some seconds as well.

    Raises:
        ExceptionGroup: of every step that failed.
    """
    done = {name: asyncio.Event() for name in steps}
    begun: set[asyncio.Task[None]] = set()
    failing = False

    async def one(name: str) -> None:
        for needed in steps[name].needs:
            await done[needed].wait()
        task = asyncio.current_task()
        if failing or task is None:
            return
        begun.add(task)
        await steps[name].do()
        done[name].set()

    tasks = [asyncio.create_task(one(name), name=name) for name in steps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failing = True
        if not all(task.done() for task in begun):
            await asyncio.wait(begun, timeout=_GRACE_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    if failures := [outcome for outcome in outcomes if isinstance(outcome, Exception)]:
        raise ExceptionGroup("the start failed", failures)
