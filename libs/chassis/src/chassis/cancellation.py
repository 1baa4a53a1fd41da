"""Cancellations that a library has kept to itself."""

from __future__ import annotations

import asyncio


def heed_cancellation() -> None:
    """Raise the current task's cancellation, if there is one; to be called after something of a library has been awaited.

    Before Python 3.12 `asyncio.wait_for` returns as if nothing were, when a cancellation comes together with what is waited
    for (python/cpython#86296), and a task that is to end goes on. Not for what is done on the way out: it is cancelled there.

    Raises:
        asyncio.CancelledError: the task is to end.
    """
    if (task := asyncio.current_task()) is not None and task.cancelling():
        raise asyncio.CancelledError
