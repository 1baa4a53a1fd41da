"""Bulkheads: how many calls of each class of operation a process works on at once, and how long the others may wait.

The contract says which class an operation is of (`x-class` in OpenAPI, `operation_class` of an RPC). Each has a lane of
its own: slots, and a short queue in front of them, in order of arrival. A call whose expected wait is over the bound is
refused before any work is done for it (OVERLOADED with a Retry-After); a slow class fills its own lane and no other's.

The expected wait is that of Little's law: how many are in front, by the rate at which the lane empties, which is its
slots by the measured service time. It is never less than the time since the lane last moved: one in which everything
hangs takes no more callers, however quick it was before. ADR 0012 says why Envoy's adaptive concurrency is not used.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

from chassis import context
from chassis.errors import ServiceError

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
# (max_requests in deploy/envoy/policies/traffic.j2), so that no class is refused there for another's calls.
BOUNDS: Mapping[str, Bounds] = {
    "read": Bounds(slots=64, queue=128, wait=0.25),
    "write": Bounds(slots=32, queue=64, wait=0.5),
    "payment": Bounds(slots=32, queue=32, wait=0.5),
    "login": Bounds(slots=16, queue=32, wait=1.0),
    "administration": Bounds(slots=16, queue=16, wait=0.5),
}


class Lane:
    """One class of operation in one process."""

    __slots__ = ("_moved", "_slots", "_waiting", "admitted", "bounds", "name", "refused", "running", "seconds")

    def __init__(self, name: str, bounds: Bounds) -> None:
        self.name = name
        self.bounds = bounds
        self._slots = bounds.slots
        self.running = 0
        self.admitted = 0
        self.refused = 0
        # The measured service time: an exponentially weighted mean, seconds.
        self.seconds = 0.0
        # When the lane became full, or when a call last left it.
        self._moved = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._waiting)

    def expected_wait(self, now: float) -> float:
        """Seconds until a call that comes at `now` (of the monotonic clock) would get a slot."""
        if self.running < self.bounds.slots:
            return 0.0
        in_front = (len(self._waiting) + 1) * self.seconds / self.bounds.slots
        return max(in_front, now - self._moved)

    def take(self) -> float:
        """Take a slot at once: when it was taken, which `leave` wants to know; 0.0 when none is free.

        For the path of every request: `entered = lane.take() or await lane.wait()`, and one `leave` for each.
        """
        if self.running >= self._slots:
            return 0.0
        now = monotonic()
        self.admitted += 1
        self.running += 1
        if self.running == self._slots:
            self._moved = now
        return now

    def leave(self, entered: float) -> None:
        """Give the slot back: to who has waited longest, if anybody has."""
        self._moved = now = monotonic()
        self.seconds += (now - entered - self.seconds) * _NEWEST
        if self._waiting:
            self._hand_on()
        else:
            self.running -= 1

    def _hand_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1

    async def wait(self) -> float:
        """Wait for a slot, when it is likely to come in time; when it was taken.

        Raises:
            ServiceError: OVERLOADED, with the time after which it is worth trying again.
        """
        expected, patience = self.expected_wait(monotonic()), _patience(self.bounds.wait)
        if expected > patience or len(self._waiting) >= self.bounds.queue:
            raise self._refusal(expected)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(patience):
                await turn
        except BaseException as error:
            # Given up, by the bound or by the caller: with a slot in hand it is the next one's.
            if turn.done() and not turn.cancelled():
                self._hand_on()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise self._refusal(self.expected_wait(monotonic())) from None
            raise
        self.admitted += 1
        return monotonic()

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

    def lane(self, operation_class: str) -> Lane:
        """The lane of a class.

        Raises:
            KeyError: the contract names a class that there is not.
        """
        return self.lanes[operation_class]

    def metrics(self) -> str:
        """All lanes in the Prometheus text format."""
        lines = []
        for name, kind, meaning, value in _METRICS:
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
            lines += [f'{name}{{class="{lane.name}"}} {value(lane)}' for lane in self.lanes.values()]
        return "\n".join(lines) + "\n"


_METRICS: tuple[tuple[str, str, str, Callable[[Lane], float]], ...] = (
    ("backend_admission_admitted_total", "counter", "Calls that got a slot", lambda lane: lane.admitted),
    ("backend_admission_refused_total", "counter", "Calls that were refused", lambda lane: lane.refused),
    ("backend_admission_slots", "gauge", "Calls worked on at once, at most", lambda lane: lane.bounds.slots),
    ("backend_admission_running", "gauge", "Calls that have a slot now", lambda lane: lane.running),
    ("backend_admission_waiting", "gauge", "Calls that wait for a slot now", lambda lane: lane.waiting),
    (
        "backend_admission_expected_wait_seconds",
        "gauge",
        "How long a call that came now would wait for a slot",
        lambda lane: lane.expected_wait(monotonic()),
    ),
    ("backend_admission_service_seconds", "gauge", "How long a call keeps its slot", lambda lane: lane.seconds),
)
