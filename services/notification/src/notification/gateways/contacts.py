"""Addresses, which the User service knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from chassis.errors import ServiceError
from contracts.user.v1 import contact_pb2

from notification.domain.errors import NoRecipientError

if TYPE_CHECKING:
    from contracts.user.v1.contact_pb2_grpc import ContactServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Contact:
    """Where somebody is written to, and what they are called; neither is ever logged."""

    email: str
    display_name: str

    def __repr__(self) -> str:
        """Of a traceback's locals, and whatever prints one."""
        return "Contact(…)"


class Contacts(Protocol):
    """Who knows them."""

    async def of(self, user_id: UUID) -> Contact:
        """A user's.

        Raises:
            NoRecipientError: they are gone or disabled.
            ServiceError: they cannot be had now.
        """
        ...


class UserContacts:
    """See `Contacts`; asks the User service, whenever somebody is written to.

    Args:
        users: its stub.
    """

    def __init__(self, users: ContactServiceAsyncStub) -> None:
        self._users = users

    async def of(self, user_id: UUID) -> Contact:
        """See `Contacts`."""
        try:
            found = await self._users.GetContact(contact_pb2.GetContactRequest(user_id=str(user_id)))
        except ServiceError as error:
            if error.reason == "NOT_FOUND":
                raise NoRecipientError from None
            raise
        return Contact(found.email, found.display_name)
