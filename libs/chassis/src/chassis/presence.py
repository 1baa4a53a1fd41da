"""Whether whoever asked still waits for the answer: they have not gone, and their deadline has not passed.

A client may reset its request as soon as it has sent it, as often as its limits allow. What is done for it then holds a
slot that somebody else waits for, and calls nobody will answer: Envoy ends the calls that a request made together with
it, and a call begun after that hangs until its deadline.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive

# A caller that leaves is noticed within twice this time. The host reports it only when asked (its receive() does not
# wait once the body is complete), and asking has a price, so calls shorter than this never pay it.
POLL_SECONDS = 0.1


class CallerGoneError(Exception):
    """The peer reset the stream or its connection; there is nobody left to answer."""


class Presence:
    """The caller of one request, for the duration of a block: ends the block's task when nobody waits any more.

    The block ends with CallerGoneError once the caller has gone, with TimeoutError once the deadline has passed. This is
    the one timer that a request has: what is done below it needs none. Whose a cancellation is, it tells as
    `asyncio.timeout` does, which costs half as much again (ADR 0026).

    Args:
        receive: the request's ASGI `receive`. Nobody else may use it from `watch` on until the end of the block.
        deadline: on the event loop's clock.
    """

    __slots__ = ("_among", "_cancelling", "_deadline", "_receive", "_task", "_timer", "_watcher", "is_gone", "is_late")

    def __init__(self, receive: Receive, deadline: float | None) -> None:
        self._receive = receive
        self._deadline = deadline
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._timer: asyncio.TimerHandle | None = None
        self._among: set[Presence] | None = None
        self._watcher: asyncio.Task[None] | None = None
        # Whether it has been noticed.
        self.is_gone = False
        self.is_late = False

    def __enter__(self) -> Self:
        """The task that enters is the one that is ended."""
        self._task = task = asyncio.current_task()
        if self._deadline is not None and task is not None:
            self._cancelling = task.cancelling()
            self._timer = task.get_loop().call_at(self._deadline, self._expire)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """The task is done with the request."""
        if self._timer is not None:
            self._timer.cancel()
        if self._among is not None:
            self._among.discard(self)
        if self._watcher is not None:
            self._watcher.cancel()
        if error is None:
            return
        if self.is_gone:
            raise CallerGoneError from error
        # Cancelled by somebody else as well, it is cancelled.
        if self.is_late and kind is asyncio.CancelledError and self._is_the_only_reason():
            raise TimeoutError from error

    def _is_the_only_reason(self) -> bool:
        return self._task is not None and self._task.uncancel() <= self._cancelling

    async def check(self) -> None:
        """Ask the host, which answers at once when the request has no body.

        Raises:
            CallerGoneError: nobody waits any more.
        """
        if (await self._receive())["type"] == "http.disconnect":
            self.is_gone = True
            raise CallerGoneError

    def watch(self) -> None:
        """From now on, end the task once the caller has gone. The request's body has been read."""
        self._among = _round_of(asyncio.get_running_loop()).add(self)

    def poll(self) -> None:
        """Begin to ask."""
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            await asyncio.sleep(POLL_SECONDS)
        self.is_gone = True
        if self._task is not None:
            self._task.cancel()

    def _expire(self) -> None:
        self.is_late = True
        if self._task is not None:
            self._task.cancel()


class _Round:
    """Looks after the callers of one event loop: one timer for all of them, for one a request costs ten times as much."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._newcomers: set[Presence] = set()
        # Who was there a round ago.
        self._known: set[Presence] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, presence: Presence) -> set[Presence]:
        """Poll for it if it is still among the returned ones in the second round from now."""
        self._newcomers.add(presence)
        if self._timer is None:
            self._timer = self.loop.call_later(POLL_SECONDS, self._go)
        return self._newcomers

    def _go(self) -> None:
        for presence in self._known:
            presence.poll()
        self._known, self._newcomers = self._newcomers, set()
        self._timer = self.loop.call_later(POLL_SECONDS, self._go) if self._known else None


_last: _Round | None = None


def _round_of(loop: asyncio.AbstractEventLoop) -> _Round:
    """A process has one event loop for its traffic; with more, each still looks after its own."""
    global _last  # noqa: PLW0603 - the newest, so that it need not be looked up
    if _last is None or _last.loop is not loop:
        _last = _Round(loop)
    return _last
