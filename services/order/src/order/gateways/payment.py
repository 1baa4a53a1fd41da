"""What the Order service needs of a payment provider."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol
from uuid import UUID

from order.domain.money import Money


class ChargeOutcome(StrEnum):
    """What the provider decided."""

    APPROVED = "approved"
    DECLINED = "declined"
    # Nobody was charged, and nobody will be: `resolve` was faster than the charge.
    CLOSED = "closed"


class RefundOutcome(StrEnum):
    """What the provider decided about giving money back."""

    SUCCEEDED = "succeeded"
    REFUSED = "refused"


class PaymentGateway(Protocol):
    """A payment provider. `reference` is ours, unique for each attempt, and makes every call idempotent.

    A call that was given up may still act; who bounds the time of calls is `BoundedGateway`.
    """

    async def charge(self, reference: UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        """Charge, or answer again how the charge with this reference ended.

        Raises:
            PaymentTimeoutError: no answer in time; the charge may or may not have happened.
            PaymentProviderError: the provider failed; this call has charged nothing. An earlier one with the same
                reference may have, or may yet: only `resolve` says that nothing was charged.
        """
        ...

    async def resolve(self, reference: UUID) -> ChargeOutcome:
        """How the charge with this reference ended. If it has not arrived yet, it is closed, so that it never charges.

        Raises:
            PaymentTimeoutError, PaymentProviderError: the provider does not, or cannot say; it may be charged, or closed.
        """
        ...

    async def refund(self, reference: UUID) -> RefundOutcome:
        """Give an approved charge back, all of it, once; or answer again that it has been given back.

        Raises:
            PaymentTimeoutError: no answer in time; the money may or may not have been given back.
            PaymentProviderError: the provider failed; this call has given nothing back.
        """
        ...
