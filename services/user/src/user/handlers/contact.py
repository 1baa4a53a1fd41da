"""ContactService: protobuf to use cases and back."""

from __future__ import annotations

from uuid import UUID

from contracts.user.v1 import contact_pb2
from contracts.user.v1.contact_pb2_grpc import ContactServiceServicer

from user.service.users import UserUseCases


class ContactHandlers(ContactServiceServicer):
    """The servicer."""

    def __init__(self, users: UserUseCases) -> None:
        self._users = users

    async def GetContact(self, request: contact_pb2.GetContactRequest, _context: object) -> contact_pb2.Contact:
        """See the contract."""
        user = await self._users.contact(UUID(request.user_id))
        return contact_pb2.Contact(email=user.email, display_name=user.display_name)
