"""What can go wrong, in the domain's words. `reason` names the row of the error table (api/errors.yaml)."""

from __future__ import annotations

from typing import ClassVar


class DomainError(Exception):
    """A rule of the domain was broken; safe to show to a client."""

    reason: ClassVar[str]


class NotFoundError(DomainError):
    """It does not exist, or is not the caller's to see."""

    reason = "NOT_FOUND"
