"""Argon2id in threads of the lowest priority, behind a bounded queue.

A caller who would not get a hash before its deadline is refused at once, and not only when the deadline passes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from chassis import context
from chassis.errors import ServiceError

T = TypeVar("T")

# OWASP Password Storage Cheat Sheet: Argon2id with 19 MiB, two passes, one lane.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# A hash takes as much of a core as a hundred reads. With this priority it gets only the time that they leave.
_NICE = 10
# The weight of the newest measurement in the average time of a hash.
_NEWEST = 0.1


class Passwords:
    """Hashes and verifies passwords.

    Args:
        workers: hashes computed at once.
        queue: callers that may wait; more are refused at once, before a queue can grow.
    """

    def __init__(self, workers: int, queue: int) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="argon2", initializer=_step_back)
        self._workers = workers
        self._room = workers + queue
        self._inside = 0
        began = time.monotonic()
        # The hash that passwords for unknown addresses are checked against, so that they take as long as known ones.
        self._decoy = _HASHER.hash("nobody's password")
        # The average time of a hash, as measured.
        self._seconds = time.monotonic() - began

    async def hash(self, password: str) -> str:
        """The hash to store.

        Raises:
            ServiceError: OVERLOADED when the queue is full or would take longer than there is time, with the time that
                it takes; DEADLINE_EXCEEDED when the deadline passes in it after all.
        """
        return await self._run(lambda: _HASHER.hash(password))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password is the hash's; None, for an unknown user, takes the same time and is False.

        Raises:
            ServiceError: as `hash`.
        """
        matches = await self._run(lambda: _matches(password_hash or self._decoy, password))
        return matches and password_hash is not None

    def expected_seconds(self) -> float:
        """How long a caller who comes now will wait: for the hashes in front of it, then for its own."""
        return (max(0, self._inside - self._workers + 1) / self._workers + 1) * self._seconds

    async def _run(self, work: Callable[[], T]) -> T:
        current = context.current()
        remaining = current.remaining() if current else None
        expected = self.expected_seconds()
        if self._inside >= self._room or (remaining is not None and expected > remaining):
            raise ServiceError("OVERLOADED", retry_after=max(1.0, expected))
        self._inside += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, _timed, work)
        future.add_done_callback(self._leave)
        try:
            result, _ = await asyncio.wait_for(future, remaining)
        except TimeoutError as error:
            raise ServiceError("DEADLINE_EXCEEDED") from error
        return result

    def _leave(self, future: asyncio.Future[tuple[T, float]]) -> None:
        self._inside -= 1
        if not future.cancelled() and future.exception() is None:
            self._seconds += (future.result()[1] - self._seconds) * _NEWEST

    def close(self) -> None:
        """Finish what runs, drop what waits."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.monotonic()
    return work(), time.monotonic() - began


def _step_back() -> None:
    # On Linux a thread has its own priority; elsewhere this would change that of the whole process.
    if sys.platform == "linux":
        mine = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, mine, os.getpriority(os.PRIO_PROCESS, mine) + _NICE)


def needs_rehash(password_hash: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    try:
        return _HASHER.check_needs_rehash(password_hash)
    except InvalidHashError:
        return False


def _matches(password_hash: str, password: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
