"""What a process does of its own accord, beside its requests: supervised, so that nothing ends unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self

import structlog

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

_RESTARTS = "backend_worker_restarts_total"
_RUNNING = "backend_worker_running"

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

    def _is_stopping(self, name: str) -> bool:
        """Whether we are cancelling it; a cancellation of somebody else's that came through the work is a failure."""
        return self._tasks[name].cancelling() > 0

    def ended(self) -> dict[str, str]:
        """Which of them do not run at this moment, and why."""
        return {f"worker {name}": why for name, why in self._ended.items()}

    def metrics(self) -> str:
        """Whether they run, and how often each was started again, in the Prometheus text format."""
        if not self._works:
            return ""
        running = (f'{_RUNNING}{{worker="{name}"}} {int(name not in self._ended)}\n' for name in self._works)
        restarts = (f'{_RESTARTS}{{worker="{name}"}} {count}\n' for name, count in self._restarts.items())
        return "".join(
            [
                f"# HELP {_RUNNING} 0 while a worker has ended and waits to be started again\n# TYPE {_RUNNING} gauge\n",
                *running,
                f"# HELP {_RESTARTS} How often a worker that ended was started again\n# TYPE {_RESTARTS} counter\n",
                *restarts,
            ]
        )
