"""Identifiers."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def uuid7(moment: datetime | None = None) -> UUID:
    """A UUIDv7: 48 bits of Unix milliseconds, then 74 random bits (RFC 9562, section 5.7).

    Time-ordered, so that it doubles as the keyset of "newest first" lists and keeps B-tree inserts local.

    Args:
        moment: of this time instead of now.
    """
    milliseconds = time.time_ns() // 1_000_000 if moment is None else _milliseconds(moment)
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def first_uuid7(moment: datetime) -> UUID:
    """What no UUIDv7 of the millisecond of `moment`, or of a later one, is below. It is none itself."""
    return UUID(int=_milliseconds(moment) << 80)


def _milliseconds(moment: datetime) -> int:
    # What is outside of 48 bits, from 1970 to 10889, is before all ids or after all.
    return min(max((moment - _EPOCH) // _MILLISECOND, 0), (1 << 48) - 1)
