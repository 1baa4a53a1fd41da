"""What can go wrong, in the domain's words. `reason` names the row of the error table (api/errors.yaml)."""

from __future__ import annotations

from typing import ClassVar


class DomainError(Exception):
    """A rule of the domain was broken; safe to show to a client."""

    reason: ClassVar[str]


class AlwaysSentError(DomainError):
    """A kind of mail that is part of a transaction cannot be switched.

    Args:
        kind: its name.
    """

    reason = "INVALID_ARGUMENT"

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.violations = ((f"/{kind}", "is always sent"),)


class StaleVersionError(DomainError):
    """The caller's copy is not the current one."""

    reason = "STALE_VERSION"


class NoRecipientError(Exception):
    """Whoever was to be written to is gone or disabled."""


class MailServerUnavailableError(Exception):
    """No mail can be sent now, whatever it is: nothing speaks against this one. The text has no address in it."""


class MailDeferredError(Exception):
    """The server does not take this mail now, and may later. The text has no address in it."""


class MailRefusedError(Exception):
    """The server will never take this mail. The text has no address in it."""
