"""Asks the processes of a stack how they are and what they have counted: often while somebody looks, seldom otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from devstack import state
from devstack.console import exposition
from devstack.health import Health
from devstack.layout import Layout
from devstack.state import StackState

# Between two rounds, while somebody looks and while nobody does. Whoever looks later sees what was counted meanwhile.
WATCHED_SECONDS = 2.0
UNWATCHED_SECONDS = 15.0
# For so long after somebody's last question they are taken to be looking.
_LOOKS_SECONDS = 10.0
# How long somebody who looks again is kept waiting for what is so now.
_PATIENCE_SECONDS = 2.0
_SERVES = ("ready", "unhealthy")


@dataclass(frozen=True, slots=True)
class Round:
    """What was found once.

    Attributes:
        at: Unix seconds.
        stack: as the supervisor has it; None when it has written nothing.
        states: of each process, as it says itself where it was asked, else as the supervisor knows it.
        found: by process and check, what fails or works less well.
        numbers: by process and series, of those that answered.
    """

    at: float = 0.0
    stack: StackState | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    found: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    numbers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class Rounds:
    """Goes round until it is cancelled.

    Args:
        layout: where the stack is.
        wanted: which families of metrics are kept.
        take: is given each round.
        say: tells of what went wrong.
    """

    def __init__(
        self,
        layout: Layout,
        wanted: frozenset[str],
        take: Callable[[Round], None],
        say: Callable[[str], None],
    ) -> None:
        self._layout = layout
        self._wanted = wanted
        self._take = take
        self._say = say
        self._looked = float("-inf")
        self._done = asyncio.Event()
        self._look = asyncio.Event()
        self.last = Round()

    async def run(self) -> None:
        """One round after the other."""
        while True:
            watched = self.is_watched
            try:
                self.last = await self._once(asked=watched)
                self._take(self.last)
            except Exception as error:
                # A file that is half written, a disk that is full: the next round finds better.
                self._say(f"a round failed: {type(error).__name__}: {error}")
            self._done.set()
            self._done = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCHED_SECONDS if self.is_watched else UNWATCHED_SECONDS):
                    await self._look.wait()
            self._look.clear()

    @property
    def is_watched(self) -> bool:
        """Whether somebody looks."""
        return time.monotonic() - self._looked < _LOOKS_SECONDS

    async def look(self) -> Round:
        """The last round; for the first who looks after a while, one that begins now."""
        was_watched = self.is_watched
        self._looked = time.monotonic()
        if not was_watched:
            self._look.set()
            done = self._done
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await done.wait()
        return self.last

    async def _once(self, *, asked: bool) -> Round:
        stack = state.read(self._layout)
        if stack is None:
            return Round(time.time())
        states = {process.name: process.state for process in stack.processes}
        found: dict[str, Mapping[str, str]] = {}
        serving = [name for name, told in states.items() if told in _SERVES]
        if asked:
            health = Health(self._layout, stack.endpoints)
            answers = await asyncio.gather(*(health.now(name) for name in serving))
            for name, (now, lacking) in zip(serving, answers, strict=True):
                states[name] = now
                found[name] = lacking
        scraped = [name for name in serving if f"{name}_ops" in stack.endpoints]
        numbers = await asyncio.gather(*map(self._numbers, scraped))
        told = {name: of_process for name, of_process in zip(scraped, numbers, strict=True) if of_process is not None}
        return Round(time.time(), stack, states, found, told)

    async def _numbers(self, process: str) -> Mapping[str, float] | None:
        try:
            text = await exposition.fetched(self._layout.port(f"{process}_ops"))
        except (OSError, TimeoutError):
            return None
        return exposition.numbers(text, self._wanted)
