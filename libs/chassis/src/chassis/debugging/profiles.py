"""Where the time goes, and where the memory: taken for a while, one at a time, and then off again."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from chassis.debugging.stacks import Place, Traffic, every_thread

MOST_SECONDS = 30.0
_PERIOD_SECONDS = 0.01
# Whoever wants Python's lock has it after so long instead of 5 ms: most requests are over by then, and the traffic's
# thread would be found waiting for the next one whenever it is looked at.
_SWITCH_SECONDS = 0.0001
# Lines that allocate, by what is still there of it; those of less are left out.
_MOST_SITES = 200
# With sixteen a service under load serves a third of the requests, with four two thirds or more (ADR 0034).
_FRAMES_OF_A_SITE = 4


class BusyError(Exception):
    """Another profile is being taken."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Stacks, from the outermost place to the innermost, and what was found at each.

    Args:
        kinds: of the values of a stack, what each is, and its unit. The last is the one that matters most.
        stacks: by the thread's name, empty when it is of none, and the stack.
    """

    kinds: tuple[tuple[str, str], ...]
    stacks: Mapping[tuple[str, tuple[Place, ...]], tuple[int, ...]]
    began: float
    seconds: float


class Profiler:
    """Takes profiles of this process, one at a time.

    It runs in the loop of whoever asks, which is not the traffic's.
    """

    def __init__(self) -> None:
        self._is_busy = False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._is_busy:
            raise BusyError("a profile is being taken; ask again when it is done")
        self._is_busy = True
        try:
            yield
        finally:
            self._is_busy = False

    async def time(self, seconds: float, traffic: Traffic | None) -> Profile:
        """Look at every thread a hundred times a second.

        Raises:
            BusyError: another one is being taken.
        """
        own = threading.get_ident()
        clock = None if traffic is None else traffic.cpu_clock
        found: dict[tuple[str, tuple[Place, ...]], list[int]] = defaultdict(lambda: [0, 0, 0])
        with self._alone(), _quick_switches():
            began, cpu = time.time(), _cpu(clock)
            first = before = time.perf_counter_ns()
            while before - first < seconds * 1e9:
                await asyncio.sleep(_PERIOD_SECONDS)
                now, cpu_now = time.perf_counter_ns(), _cpu(clock)
                for ident, (name, stack) in every_thread(traffic).items():
                    if ident == own:
                        continue
                    values = found[name, stack]
                    values[0] += 1
                    values[1] += now - before
                    if traffic is not None and ident == traffic.thread:
                        values[2] += cpu_now - cpu
                before, cpu = now, cpu_now
        kinds = (("samples", "count"), ("wall", "nanoseconds"), ("cpu", "nanoseconds"))[: 2 if clock is None else 3]
        stacks = {key: tuple(values[: len(kinds)]) for key, values in found.items()}
        return Profile(kinds, stacks, began, (before - first) / 1e9)

    async def memory(self, seconds: float) -> Profile:
        """Watch what is allocated for so long, and tell what of it is still there at the end.

        Raises:
            BusyError: another one is being taken, or somebody else has tracemalloc on.
        """
        with self._alone():
            if tracemalloc.is_tracing():
                raise BusyError("tracemalloc is on already (PYTHONTRACEMALLOC)")
            began, first = time.time(), time.perf_counter()
            tracemalloc.start(_FRAMES_OF_A_SITE)
            try:
                await asyncio.sleep(seconds)
                snapshot = tracemalloc.take_snapshot()
            finally:
                tracemalloc.stop()
            stacks: dict[tuple[str, tuple[Place, ...]], tuple[int, ...]] = {}
            for site in (await asyncio.to_thread(snapshot.statistics, "traceback"))[:_MOST_SITES]:
                # It keeps no names of functions.
                places = tuple(Place(line.filename, line.lineno, "") for line in site.traceback)
                stacks["", places] = (site.count, site.size)
        kinds = (("inuse_objects", "count"), ("inuse_space", "bytes"))
        return Profile(kinds, stacks, began, time.perf_counter() - first)


def _cpu(clock: int | None) -> int:
    try:
        return 0 if clock is None else time.clock_gettime_ns(clock)
    except OSError:
        # The thread has ended.
        return 0


@contextmanager
def _quick_switches() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
