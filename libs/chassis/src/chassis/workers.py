"""What a process does of its own accord, beside its requests: supervised, so that nothing ends unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Self

import structlog

from chassis.metrics.families import Reading
from chassis.observe import Work as Observed
from chassis.observe import observe

Work = Callable[[], Awaitable[None]]

# The pause before a worker that has ended is started again: doubled each time it ends soon, up to the longest.
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
# Whatever has run for so long had not just ended: the next pause is the first again.
_SOUND_SECONDS = 60.0
# What a worker has for its cleaning up once it is stopped.
_STOP_SECONDS = 5.0

_RESTARTS = Reading("backend_worker_restarts_total", "How often a worker that had ended was started again", "worker")
_RUNNING = Reading("backend_worker_running", "0 while a worker has ended and waits to be started again", "worker")

_log = structlog.get_logger(__name__)


class Workers:
    """Runs each worker for the duration of the block, and starts it again whenever it ends.

    Stopped in the reverse order of their start, one after the other: a later one may need an earlier one.

    Args:
        works: by name; each is to run until it is cancelled.
        first_pause: seconds before the first restart.
    """

    def __init__(self, works: Mapping[str, Work], first_pause: float = _FIRST_PAUSE_SECONDS) -> None:
        self._works = works
        self._first_pause = first_pause
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._restarts = dict.fromkeys(works, 0)
        # Why it does not run now, by name.
        self._ended: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        """Start them."""
        for name, work in self._works.items():
            _RUNNING.read(partial(self._is_running, name), name)
            _RESTARTS.read(partial(self._restarts.__getitem__, name), name)
            self._tasks[name] = asyncio.create_task(self._supervise(name, work), name=name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop them; one that does not end is left behind after some seconds, and named in the log."""
        for name, task in reversed(self._tasks.items()):
            task.cancel()
            _, pending = await asyncio.wait({task}, timeout=_STOP_SECONDS)
            if pending:
                _log.error("a worker did not stop", worker=name)

    async def _supervise(self, name: str, work: Work) -> None:
        clock = asyncio.get_running_loop().time
        pause = self._first_pause
        while True:
            began = clock()
            try:
                with observe(Observed("worker", name)):
                    await work()
            except (Exception, asyncio.CancelledError) as error:
                if self._is_stopping(name):
                    raise
                _log.exception("a worker failed", worker=name)
                self._ended[name] = f"failed: {type(error).__name__}"
            else:
                _log.error("a worker ended", worker=name)
                self._ended[name] = "ended"
            if clock() - began >= _SOUND_SECONDS:
                pause = self._first_pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            self._restarts[name] += 1
            del self._ended[name]

    def _is_running(self, name: str) -> bool:
        return name not in self._ended

    def _is_stopping(self, name: str) -> bool:
        """Whether we are cancelling it; a cancellation of somebody else's that came through the work is a failure."""
        return self._tasks[name].cancelling() > 0

    def ended(self) -> dict[str, str]:
        """Which of them do not run at this moment, and why."""
        return {f"worker {name}": why for name, why in self._ended.items()}
