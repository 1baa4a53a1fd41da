"""What can go wrong, in the domain's words. `reason` names the row of the error table (api/errors.yaml)."""

from __future__ import annotations

from typing import ClassVar


class DomainError(Exception):
    """A rule of the domain was broken; safe to show to a client."""

    reason: ClassVar[str]


class InvalidFieldError(DomainError):
    """A field holds what it may not; the message is for whoever filled it in.

    Args:
        pointer: JSON pointer of the field (RFC 6901).
        detail: what is wrong with it.
    """

    reason = "INVALID_ARGUMENT"

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__()
        self.violations = ((pointer, detail),)


class NotFoundError(DomainError):
    """There is no such user."""

    reason = "NOT_FOUND"


class EmailTakenError(DomainError):
    """The address is registered, in this or another spelling."""

    reason = "EMAIL_TAKEN"


class InvalidCredentialsError(DomainError):
    """Wrong address, wrong password or disabled user; the caller is not told which."""

    reason = "INVALID_CREDENTIALS"


class StaleVersionError(DomainError):
    """The caller's copy is not the current one."""

    reason = "STALE_VERSION"


class UnknownRoleError(DomainError):
    """A role that does not exist."""

    reason = "INVALID_ARGUMENT"


class LastAdministratorError(DomainError):
    """The change would leave nobody who administers users."""

    reason = "LAST_ADMINISTRATOR"


class SessionEndedError(DomainError):
    """The session of this access token has ended."""

    reason = "UNAUTHENTICATED"


class InvalidRefreshTokenError(DomainError):
    """Unknown, of an ended session, or spent."""

    reason = "INVALID_REFRESH_TOKEN"
