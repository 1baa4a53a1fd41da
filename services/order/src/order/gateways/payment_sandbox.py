"""The built-in payment provider: a sandbox that behaves as test tokens of real providers do.

    tok_approved         approves
    tok_declined         declines
    tok_timeout          approves, but answers only when it is asked again: the first call is never answered
    tok_error            fails without charging
    tok_refund_timeout   approves; a refund is made at once and answered only when it is asked for again
    tok_refund_error     approves; the first call to refund fails
    tok_refund_refused   approves; a refund is refused, however often it is asked for

Any other token is declined. Its state is in the database, so every replica and every restart sees the same charges.
No real provider ships with this project: one is another `PaymentGateway`, chosen by PAYMENT_PROVIDER.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

from chassis.database import Database

from order.domain.errors import PaymentProviderError
from order.domain.money import Money
from order.gateways.payment import ChargeOutcome, RefundOutcome
from order.repository import queries

_APPROVED = frozenset({"tok_approved", "tok_timeout", "tok_refund_timeout", "tok_refund_error", "tok_refund_refused"})
# Stored for a reference that was closed before a charge arrived.
_NO_CURRENCY = ""


class PaymentSandbox:
    """A `PaymentGateway` without a bank.

    Args:
        database: where the charges are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def charge(self, reference: UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        """See `PaymentGateway.charge`."""
        known = await self._find(reference)
        if known is not None:
            return known
        if payment_token == "tok_error":
            raise PaymentProviderError
        outcome = await self._keep(reference, amount, payment_token, approved=payment_token in _APPROVED)
        if payment_token == "tok_timeout":
            await asyncio.Event().wait()
        return outcome

    async def resolve(self, reference: UUID) -> ChargeOutcome:
        """See `PaymentGateway.resolve`."""
        # A charge of nothing, which keeps a later one out. If a real charge was a moment faster, that one counts.
        return await self._keep(reference, Money(0, _NO_CURRENCY), "", approved=False)

    async def refund(self, reference: UUID) -> RefundOutcome:
        """See `PaymentGateway.refund`."""
        async with self._database.connection() as connection:
            charge = await queries.try_sandbox_refund(connection, reference=reference)
            if charge is None:
                raise PaymentProviderError("the provider does not know this charge")
            first = charge.refund_tries == 1
            if charge.payment_token == "tok_refund_refused":
                return RefundOutcome.REFUSED
            if charge.payment_token == "tok_refund_error" and first:
                raise PaymentProviderError
            await queries.refund_sandbox_charge(connection, reference=reference)
        if charge.payment_token == "tok_refund_timeout" and first:
            await asyncio.Event().wait()
        return RefundOutcome.SUCCEEDED

    async def _find(self, reference: UUID) -> ChargeOutcome | None:
        async with self._database.connection() as connection:
            charge = await queries.get_sandbox_charge(connection, reference=reference)
        return None if charge is None else _outcome(charge)

    async def _keep(self, reference: UUID, amount: Money, payment_token: str, *, approved: bool) -> ChargeOutcome:
        """Keep a charge; what is stored counts, for a simultaneous call with the same reference may have been first."""
        async with self._database.connection() as connection:
            charge = await queries.insert_sandbox_charge(
                connection,
                reference=reference,
                amount_minor=amount.amount_minor,
                currency=amount.currency,
                approved=approved,
                payment_token=payment_token,
            )
        return ChargeOutcome.DECLINED if charge is None else _outcome(charge)


def _outcome(charge: queries.PaymentSandboxCharge) -> ChargeOutcome:
    if charge.currency == _NO_CURRENCY:
        return ChargeOutcome.CLOSED
    return ChargeOutcome.APPROVED if charge.approved else ChargeOutcome.DECLINED
