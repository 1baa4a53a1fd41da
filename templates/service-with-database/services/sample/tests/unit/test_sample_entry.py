from __future__ import annotations

from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import pytest
from sample.domain.entry import Content, Entry
from sample.domain.errors import NotFoundError

OWNER, STRANGER = UUID(int=1), UUID(int=2)


# Whatever it is.
CONTENT = cast("Content", object())


def test_an_entry_is_its_owners_alone() -> None:
    entry = Entry(id=UUID(int=3), user_id=OWNER, content=CONTENT, created_at=datetime(2026, 1, 1, tzinfo=UTC))
    entry.require_visible_to(OWNER)
    with pytest.raises(NotFoundError):
        entry.require_visible_to(STRANGER)
