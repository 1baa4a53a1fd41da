"""What the caller is written by mail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chassis.errors import FieldViolation, ServiceError
from chassis.http.answers import is_current, json_answer, matching, not_modified
from contracts.bff.v1 import models, operations
from contracts.notification.v1 import notification_pb2
from msgspec import UNSET
from starlette.responses import Response

from bff import shapes

if TYPE_CHECKING:
    from contracts.notification.v1.notification_pb2_grpc import NotificationServiceAsyncStub


class NotificationHandlers:
    """getMyNotifications, updateMyNotifications."""

    def __init__(self, notifications: NotificationServiceAsyncStub) -> None:
        self._notifications = notifications

    async def get_my_notifications(self, headers: operations.GetMyNotificationsHeaders) -> Response:
        """GET /v1/me/notifications."""
        found = await self._notifications.GetPreferences(notification_pb2.GetPreferencesRequest())
        if is_current(headers.if_none_match, found.version):
            return not_modified(found.version)
        return json_answer(shapes.notifications(found), version=found.version)

    async def update_my_notifications(
        self, body: models.UpdateNotificationsRequest, headers: operations.UpdateMyNotificationsHeaders
    ) -> Response:
        """PATCH /v1/me/notifications."""
        wanted = {
            notification_pb2.MAIL_KIND_ORDER_DELIVERED: body.order_delivered,
            notification_pb2.MAIL_KIND_WELCOME: body.welcome,
        }
        switches = [
            notification_pb2.Switch(kind=kind, enabled=enabled)
            for kind, enabled in wanted.items()
            if enabled is not UNSET
        ]
        if not switches:
            raise ServiceError("INVALID_ARGUMENT", violations=(FieldViolation("", "a kind of mail is required"),))
        request = notification_pb2.UpdatePreferencesRequest(switches=switches)
        changed = await matching(headers.if_match, request, lambda: self._notifications.UpdatePreferences(request))
        return json_answer(shapes.notifications(changed), version=changed.version)
