"""What users keep."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sample.domain.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Content:
    """What a user says of an entry."""

    text: str


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that a user has written down."""

    id: UUID
    user_id: UUID
    content: Content
    created_at: datetime

    def require_visible_to(self, user_id: UUID) -> None:
        """Whether this user may see it.

        Raises:
            NotFoundError: no; that it exists is not told.
        """
        if user_id != self.user_id:
            raise NotFoundError
