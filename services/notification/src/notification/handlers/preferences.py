"""NotificationService: protobuf to use cases and back."""

from __future__ import annotations

from uuid import UUID

from chassis import context
from contracts.notification.v1 import notification_pb2
from contracts.notification.v1.notification_pb2_grpc import NotificationServiceServicer

from notification.domain.mail import MailKind
from notification.domain.preferences import Preferences
from notification.service.preferences import PreferenceUseCases

_TO_WIRE = {kind: notification_pb2.MailKind.Value(f"MAIL_KIND_{kind.name}") for kind in MailKind}
_FROM_WIRE = {number: kind for kind, number in _TO_WIRE.items()}


class PreferenceHandlers(NotificationServiceServicer):
    """The servicer."""

    def __init__(self, preferences: PreferenceUseCases) -> None:
        self._preferences = preferences

    async def GetPreferences(
        self, _request: notification_pb2.GetPreferencesRequest, _context: object
    ) -> notification_pb2.Preferences:
        """See the contract."""
        return _message(await self._preferences.get(_user_id()))

    async def UpdatePreferences(
        self, request: notification_pb2.UpdatePreferencesRequest, _context: object
    ) -> notification_pb2.Preferences:
        """See the contract."""
        switches = {_FROM_WIRE[switch.kind]: switch.enabled for switch in request.switches}
        expected = request.expected_version if request.HasField("expected_version") else None
        return _message(await self._preferences.switch(_user_id(), switches, expected))


def _user_id() -> UUID:
    return UUID(context.caller().user_id)


# What is switched off is asked kind by kind.
# does not pass on: user_id, switched_off
def _message(preferences: Preferences) -> notification_pb2.Preferences:
    return notification_pb2.Preferences(
        preferences=[
            notification_pb2.Preference(kind=_TO_WIRE[kind], enabled=preferences.wants(kind), required=kind.is_required)
            for kind in MailKind
        ],
        version=preferences.version,
    )
