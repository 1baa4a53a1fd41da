"""What the Order service needs of a payment provider."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol
from uuid import UUID

from order_service.domain.money import Money


class Outcome(StrEnum):
    """What the provider decided."""

    APPROVED = "approved"
    DECLINED = "declined"


class PaymentGateway(Protocol):
    """A payment provider. `reference` is ours, unique for each attempt, and makes every call idempotent."""

    async def charge(self, reference: UUID, amount: Money, payment_token: str) -> Outcome:
        """Charge, or answer again what the charge with this reference came to.

        Raises:
            PaymentTimeoutError: no answer in time; the charge may or may not have happened.
            PaymentProviderError: the provider failed; nothing was charged.
        """
        ...

    async def find(self, reference: UUID) -> Outcome | None:
        """What the charge with this reference came to; None when the provider has never seen it.

        Raises:
            PaymentProviderError: the provider cannot say.
        """
        ...

    async def refund(self, reference: UUID) -> None:
        """Give an approved charge back; again is harmless.

        Raises:
            PaymentProviderError: the provider failed or does not know such a charge.
        """
        ...
