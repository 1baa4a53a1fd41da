"""UUIDs of version 7."""

from __future__ import annotations

import time
import uuid

from chassis.ids import uuid7


def test_a_uuid7_says_so_and_carries_its_time() -> None:
    before, made, after = time.time_ns(), uuid7(), time.time_ns()
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before // 10**6 <= made.int >> 80 <= after // 10**6


def test_ids_do_not_repeat() -> None:
    assert len({uuid7() for _ in range(10_000)}) == 10_000
