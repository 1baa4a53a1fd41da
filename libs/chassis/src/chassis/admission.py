"""Bulkheads: how many calls of each class of operation a process works on at once, and how long the others may wait.

The contract says which class an operation is of (`x-class` in OpenAPI, `operation_class` of an RPC). Each has a lane of
its own: slots, and a short queue in front of them, fair between callers and in order of arrival for each. A call whose
expected wait is over the bound is refused before any work is done for it (OVERLOADED with a Retry-After); a slow class
fills its own lane and no other's, and a caller no more than half of it.

The expected wait is that of Little's law: how many are in front, by the rate at which the lane empties, which is its
slots by the measured service time. It is never less than the time since the lane last moved: one in which everything
hangs takes no more callers, however quick it was before. ADR 0012 says why Envoy's adaptive concurrency is not used.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic

from chassis import context
from chassis.errors import ServiceError
from chassis.metrics.families import Reading

# Of the measured service time, that of the newest call.
_NEWEST = 0.05


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one class may take of a process."""

    # Calls worked on at once.
    slots: int
    # Calls waiting for a slot; each also only while its expected wait is within the bound.
    queue: int
    # Seconds that a call may wait for its slot.
    wait: float


# By the class's name in the contracts. Reads are many and short; payments wait for a provider and logins for Argon2,
# which is a process or a thread elsewhere. All together stay below what the Envoy in front lets through
# (max_requests in libs/mesh/src/mesh/templates/policies/traffic.j2), so that no class is refused there for another's calls.
BOUNDS: Mapping[str, Bounds] = {
    "read": Bounds(slots=64, queue=128, wait=0.25),
    "write": Bounds(slots=32, queue=64, wait=0.5),
    "payment": Bounds(slots=32, queue=32, wait=0.5),
    "login": Bounds(slots=16, queue=32, wait=1.0),
    "administration": Bounds(slots=16, queue=16, wait=0.5),
}


class Lane:
    """One class of operation in one process.

    Where callers are told apart, none holds more than half of the slots, and a slot that comes free is that of whoever
    holds least. So the first call of somebody who has none does not wait for what somebody else has sent, however much.
    """

    __slots__ = (
        "_held", "_moved", "_queues", "_share", "_slots", "admitted", "bounds", "name", "refused", "running", "seconds",
        "waiting",
    )  # fmt: skip

    def __init__(self, name: str, bounds: Bounds) -> None:
        self.name = name
        self.bounds = bounds
        self._slots = bounds.slots
        # What one caller may hold of them.
        self._share = max(1, bounds.slots // 2)
        # Slots by caller, and the queue of each; who has none is not in it.
        self._held: dict[str, int] = {}
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}
        self.running = 0
        self.waiting = 0
        self.admitted = 0
        self.refused = 0
        # The measured service time: an exponentially weighted mean, seconds.
        self.seconds = 0.0
        # When the lane became full, or when a call last left it.
        self._moved = 0.0

    def expected_wait(self, now: float, caller: str = "") -> float:
        """Seconds until a call of `caller` that comes at `now` (of the monotonic clock) would get a slot."""
        is_full, is_over = self.running >= self._slots, self._is_over(caller)
        if not is_full and not is_over:
            return 0.0
        own = len(self._queues.get(caller, ()))
        # Of everybody else, as many go first as the caller has waiting.
        others = sum(min(len(queue), own + 1) for other, queue in self._queues.items() if other != caller)
        expected = (own + others + 1) * self.seconds / self._slots
        if is_over:
            expected = max(expected, (own + 1) * self.seconds / self._share)
        return max(expected, now - self._moved) if is_full else expected

    def _is_over(self, caller: str) -> bool:
        return bool(caller) and self._held.get(caller, 0) >= self._share

    def take(self, caller: str = "") -> float:
        """Take a slot at once: when it was taken, which `leave` wants to know; 0.0 when there is none to be had.

        For the path of every request: `entered = lane.take(caller) or await lane.wait(caller)`, and one `leave` for each.

        Args:
            caller: who counts as one; without, this call competes with all others alike.
        """
        held = self._held.get(caller, 0) if caller else 0
        if self.running >= self._slots or held >= self._share:
            return 0.0
        now = monotonic()
        self.admitted += 1
        self.running += 1
        if caller:
            self._held[caller] = held + 1
        if self.running == self._slots:
            self._moved = now
        return now

    def leave(self, entered: float, caller: str = "") -> None:
        """Give the slot back: to whoever waits, may have one, and holds least."""
        self._moved = now = monotonic()
        self.seconds += (now - entered - self.seconds) * _NEWEST
        self._give_back(caller)

    def _give_back(self, caller: str) -> None:
        self.running -= 1
        if caller:
            held = self._held.pop(caller) - 1
            if held:
                self._held[caller] = held
        while self.waiting and self.running < self._slots and self._hand_on():
            pass

    def _hand_on(self) -> bool:
        """Give a free slot to somebody; whether anybody was there who may have it."""
        allowed = (caller for caller in self._queues if not self._is_over(caller))
        caller = min(allowed, key=lambda caller: self._held.get(caller, 0), default=None)
        if caller is None:
            return False
        turn = self._out_of_queue(caller, self._queues[caller][0])
        if not turn.done():
            self.running += 1
            if caller:
                self._held[caller] = self._held.get(caller, 0) + 1
            turn.set_result(None)
        return True

    async def wait(self, caller: str = "") -> float:
        """Wait for a slot, when it is likely to come in time; when it was taken.

        Raises:
            ServiceError: OVERLOADED, with the time after which it is worth trying again.
        """
        expected, patience = self.expected_wait(monotonic(), caller), _patience(self.bounds.wait)
        if expected > patience or not self._has_place(caller):
            raise self._refusal(expected)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(caller, deque()).append(turn)
        self.waiting += 1
        try:
            async with asyncio.timeout(patience):
                await turn
        except BaseException as error:
            if turn in self._queues.get(caller, ()):
                self._out_of_queue(caller, turn)
            elif turn.done() and not turn.cancelled() and turn.exception() is None:
                # Given up, by the bound or by the caller, with a slot in hand: it is the next one's.
                self._give_back(caller)
            if isinstance(error, TimeoutError):
                raise self._refusal(self.expected_wait(monotonic(), caller)) from None
            raise
        self.admitted += 1
        return monotonic()

    def _has_place(self, caller: str) -> bool:
        """Whether there is a place in the queue: when it is full, that of the newest call of who has most in it."""
        if self.waiting < self.bounds.queue:
            return True
        most = max(self._queues, key=lambda other: len(self._queues[other]), default=caller)
        if len(self._queues.get(most, ())) <= len(self._queues.get(caller, ())) + 1:
            return False
        pushed_out = self._out_of_queue(most, self._queues[most][-1])
        if not pushed_out.done():
            pushed_out.set_exception(self._refusal(self.expected_wait(monotonic(), most)))
        return True

    def _out_of_queue(self, caller: str, turn: asyncio.Future[None]) -> asyncio.Future[None]:
        queue = self._queues[caller]
        queue.remove(turn)
        if not queue:
            del self._queues[caller]
        self.waiting -= 1
        return turn

    def _refusal(self, expected: float) -> ServiceError:
        self.refused += 1
        return ServiceError("OVERLOADED", retry_after=max(1.0, expected))


def _patience(wait: float) -> float:
    """Who has less time left than the bound waits no longer than that."""
    current = context.current()
    remaining = current.remaining() if current else None
    return wait if remaining is None else min(wait, remaining)


class Admission:
    """The lanes of one process.

    Args:
        enabled: whether they bound anything; without it (to see what they are for) they only count.
        bounds: by class.
    """

    def __init__(self, *, enabled: bool = True, bounds: Mapping[str, Bounds] = BOUNDS) -> None:
        self.lanes = {
            name: Lane(name, bound if enabled else Bounds(slots=2**31, queue=0, wait=0))
            for name, bound in bounds.items()
        }
        for reading, value in _METRICS:
            for lane in self.lanes.values():
                reading.read(partial(value, lane), lane.name)

    def lane(self, operation_class: str) -> Lane:
        """The lane of a class.

        Raises:
            KeyError: the contract names a class that there is not.
        """
        return self.lanes[operation_class]


_METRICS: tuple[tuple[Reading, Callable[[Lane], float]], ...] = (
    (Reading("backend_admission_admitted_total", "Calls that got a slot", "class"), lambda lane: lane.admitted),
    (Reading("backend_admission_refused_total", "Calls that were refused", "class"), lambda lane: lane.refused),
    (Reading("backend_admission_slots", "Calls worked on at once, at most", "class"), lambda lane: lane.bounds.slots),
    (Reading("backend_admission_running", "Calls that have a slot now", "class"), lambda lane: lane.running),
    (Reading("backend_admission_waiting", "Calls that wait for a slot now", "class"), lambda lane: lane.waiting),
    (
        Reading("backend_admission_expected_wait_seconds", "Time that a call would wait for a slot now", "class"),
        lambda lane: lane.expected_wait(monotonic()),
    ),
    (
        Reading("backend_admission_service_seconds", "How long a call keeps its slot", "class"),
        lambda lane: lane.seconds,
    ),
)
