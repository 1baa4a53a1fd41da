"""Where each task waits, and where each thread is: the same while the traffic's event loop hangs."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import NamedTuple

# Bounds of what is told.
MOST_TASKS = 500
MOST_FRAMES = 64
_MOST_NAME = 100
# How long the traffic's loop has to tell of itself before it counts as one that hangs.
_PATIENCE_SECONDS = 1.0

# What comes before a package's name in the path of its file.
_ROOTS = (f"/python{sys.version_info.major}.{sys.version_info.minor}/", "site-packages/", "/src/")


@dataclass(frozen=True, slots=True)
class Traffic:
    """The event loop that serves the traffic, its thread, and the clock of the CPU time of that thread."""

    loop: asyncio.AbstractEventLoop
    thread: int
    # None where the system has no such clocks (macOS).
    cpu_clock: int | None

    @classmethod
    def here(cls) -> Traffic:
        """The loop and the thread that this is called in."""
        thread = threading.get_ident()
        clock_of = getattr(time, "pthread_getcpuclockid", None)
        return cls(asyncio.get_running_loop(), thread, clock_of(thread) if clock_of else None)


class Place(NamedTuple):
    """A line of code that is being executed, or waited in."""

    file: str
    line: int
    function: str

    @classmethod
    def of(cls, code: CodeType, line: int | None) -> Place:
        """A line of a function."""
        return cls(code.co_filename, line or code.co_firstlineno, code.co_qualname)

    def __str__(self) -> str:
        """For people: the file from its package on."""
        if not self.file:
            return self.function
        file = self.file
        for root in _ROOTS:
            file = file.rpartition(root)[2]
        return f"{file}:{self.line} {self.function}".rstrip()


BETWEEN_STEPS = Place("", 0, "(event loop: waits, or works without Python)")


def stack_of(frame: FrameType | None) -> tuple[Place, ...]:
    """The places from the outermost to the innermost; of a deeper stack the inner ones."""
    found: list[Place] = []
    while frame is not None and len(found) < MOST_FRAMES:
        found.append(Place.of(frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return tuple(reversed(found))


def every_thread(traffic: Traffic | None) -> dict[int, tuple[str, tuple[Place, ...]]]:
    """Every thread of Python's by its identity: its name and its stack.

    The host runs the loops: while one waits, no Python runs in its thread, which then is BETWEEN_STEPS.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    names[threading.get_ident()] = "ops"
    found: dict[int, tuple[str, tuple[Place, ...]]] = {}
    if traffic is not None:
        names[traffic.thread] = "traffic"
        found[traffic.thread] = "traffic", (BETWEEN_STEPS,)
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - it has no other name
        found[ident] = names.get(ident, "host")[:_MOST_NAME], stack_of(frame)
    return found


def threads(traffic: Traffic | None) -> list[dict[str, object]]:
    """As `every_thread`, to be told."""
    return [
        {"name": name, "id": ident, "stack": [str(place) for place in stack]}
        for ident, (name, stack) in every_thread(traffic).items()
    ]


async def tasks(traffic: Traffic) -> dict[str, object]:
    """Every task of the traffic's loop: its coroutine, where it waits, and for what.

    Looked at in the loop, between two of its steps; when it does not turn, from outside: nothing moves then.
    """

    async def look() -> dict[str, object]:
        return _tasks(traffic, asyncio.current_task())

    seen: asyncio.Future[dict[str, object]] = asyncio.wrap_future(
        asyncio.run_coroutine_threadsafe(look(), traffic.loop)
    )
    try:
        return {"hangs": False, **await asyncio.wait_for(seen, _PATIENCE_SECONDS)}
    except TimeoutError:
        running = stack_of(sys._current_frames().get(traffic.thread))  # noqa: SLF001 - as above
        return {"hangs": True, "running": [str(place) for place in running], **_tasks(traffic)}


def _tasks(traffic: Traffic, looking: asyncio.Task[object] | None = None) -> dict[str, object]:
    found = sorted(
        asyncio.all_tasks(traffic.loop) - {looking}, key=lambda task: (len(task.get_name()), task.get_name())
    )
    running = asyncio.current_task(traffic.loop)
    return {"count": len(found), "tasks": [_described(task, running) for task in found[:MOST_TASKS]]}


def _described(task: asyncio.Task[object], running: asyncio.Task[object] | None) -> dict[str, object]:
    coroutine: object = task.get_coro()
    awaited = getattr(task, "_fut_waiter", None)
    return {
        "name": task.get_name()[:_MOST_NAME],
        "coroutine": str(getattr(coroutine, "__qualname__", type(coroutine).__name__))[:_MOST_NAME],
        "running": task is running,
        "stack": [str(place) for place in _awaits(coroutine)],
        "waits_for": [_named(one) for one in _parts(awaited)][:MOST_FRAMES],
    }


def _awaits(waiting: object) -> tuple[Place, ...]:
    """From a task's coroutine to the innermost one that it awaits; `Task.get_stack` has the first alone."""
    found: list[Place] = []
    while len(found) < MOST_FRAMES:
        # Of a coroutine, a generator, an asynchronous generator.
        for kind, inner in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            if (frame := getattr(waiting, f"{kind}_frame", None)) is not None:
                found.append(Place.of(frame.f_code, frame.f_lineno))
                waiting = getattr(waiting, inner)
                break
        else:
            break
    return tuple(found)


def _parts(awaited: object) -> list[object]:
    """What a future is of: those that were gathered in it, or itself."""
    if awaited is None:
        return []
    parts: list[object] = list(getattr(awaited, "_children", ()))
    return parts or [awaited]


def _named(awaited: object) -> str:
    if isinstance(awaited, asyncio.Task):
        return f"task {awaited.get_name()}"[:_MOST_NAME]
    return type(awaited).__name__
