"""Without Valkey nobody can be let in: the answer is 503, and never a guess."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chassis.errors import ServiceError
from chassis.valkey import ValkeyError


@contextmanager
def fail_closed() -> Iterator[None]:
    """Every failure of Valkey inside the block is ServiceError UNAVAILABLE."""
    try:
        yield
    except (ValkeyError, OSError) as error:
        raise ServiceError("UNAVAILABLE") from error
