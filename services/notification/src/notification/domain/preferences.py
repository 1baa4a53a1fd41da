"""What users want to be written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from notification.domain.errors import AlwaysSentError, StaleVersionError
from notification.domain.mail import MailKind


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a user has switched off; nothing, for who has never changed it."""

    user_id: UUID
    # Names of kinds, those included that a later release knows and this one does not.
    switched_off: frozenset[str] = frozenset()
    # Grows with every change.
    version: int = 1

    def wants(self, kind: MailKind) -> bool:
        """Whether mails of this kind are sent to them."""
        return kind.is_required or kind not in self.switched_off

    def require_version(self, expected: int | None) -> None:
        """None expects nothing.

        Raises:
            StaleVersionError: it is another.
        """
        if expected is not None and expected != self.version:
            raise StaleVersionError

    def switched(self, switches: Mapping[MailKind, bool]) -> Preferences:
        """With these kinds on (True) or off; the same object when that is no change.

        Raises:
            AlwaysSentError: one of them cannot be switched off, or on.
        """
        if required := [kind for kind in switches if kind.is_required]:
            raise AlwaysSentError(required[0])
        off = {kind for kind, enabled in switches.items() if not enabled}
        switched_off = (self.switched_off - switches.keys()) | off
        if switched_off == self.switched_off:
            return self
        return replace(self, switched_off=switched_off, version=self.version + 1)
