"""Argon2id off the event loop, with bounded concurrency and a bounded queue."""

from __future__ import annotations

import asyncio
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


class Passwords:
    """Hashes and verifies passwords.

    Args:
        workers: hashes computed at once.
        queue: callers that may wait; more are refused at once, before a queue can grow.
    """

    def __init__(self, workers: int, queue: int) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="argon2")
        self._room = workers + queue
        # What an unknown address is checked against, so that it takes the time a known one does.
        self._decoy = _HASHER.hash("nobody's password")

    async def hash(self, password: str) -> str:
        """The hash to store.

        Raises:
            ServiceError: OVERLOADED when the queue is full, DEADLINE_EXCEEDED when the deadline passes in it.
        """
        return await self._run(lambda: _HASHER.hash(password))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password is the hash's; None, for an unknown user, takes the same time and is False.

        Raises:
            ServiceError: as `hash`.
        """
        matches = await self._run(lambda: _matches(password_hash or self._decoy, password))
        return matches and password_hash is not None

    async def _run(self, work: Callable[[], T]) -> T:
        if self._room <= 0:
            raise ServiceError("OVERLOADED")
        self._room -= 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        future.add_done_callback(self._leave)
        current = context.current()
        try:
            return await asyncio.wait_for(future, current.remaining() if current else None)
        except TimeoutError as error:
            raise ServiceError("DEADLINE_EXCEEDED") from error

    def _leave(self, future: asyncio.Future[T]) -> None:
        self._room += 1
        if not future.cancelled():
            future.exception()

    def close(self) -> None:
        """Finish what runs, drop what waits."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _matches(password_hash: str, password: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
