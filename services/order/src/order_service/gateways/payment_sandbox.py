"""The built-in payment provider: a sandbox that behaves as test tokens of real providers do.

    tok_approved   approves
    tok_declined   declines
    tok_timeout    approves, but answers only when it is asked again: the first call runs into the timeout
    tok_error      fails without charging

Any other token is declined. Its state is in the database, so every replica and every restart sees the same charges.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

from chassis.database import Database

from order_service.domain.errors import PaymentProviderError, PaymentTimeoutError
from order_service.domain.money import Money
from order_service.gateways.payment import Outcome
from order_service.repository import queries


class PaymentSandbox:
    """A `PaymentGateway` without a bank.

    Args:
        database: where the charges are kept.
        timeout: seconds after which an unanswered call is given up.
    """

    def __init__(self, database: Database, timeout: float) -> None:
        self._database = database
        self._timeout = timeout

    async def charge(self, reference: UUID, amount: Money, payment_token: str) -> Outcome:
        """See `PaymentGateway.charge`."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._answer(reference, amount, payment_token)
        except TimeoutError as error:
            raise PaymentTimeoutError from error

    async def _answer(self, reference: UUID, amount: Money, payment_token: str) -> Outcome:
        known = await self.find(reference)
        if known is not None:
            return known
        if payment_token == "tok_error":
            raise PaymentProviderError
        approved = payment_token in ("tok_approved", "tok_timeout")
        async with self._database.connection() as connection:
            charge = await queries.insert_sandbox_charge(
                connection,
                reference=reference,
                amount_minor=amount.amount_minor,
                currency=amount.currency,
                approved=approved,
            )
        if payment_token == "tok_timeout":
            await asyncio.Event().wait()
        # What is stored counts: a simultaneous call with the same reference may have been first.
        return Outcome.APPROVED if charge is not None and charge.approved else Outcome.DECLINED

    async def find(self, reference: UUID) -> Outcome | None:
        """See `PaymentGateway.find`."""
        async with self._database.connection() as connection:
            charge = await queries.get_sandbox_charge(connection, reference=reference)
        if charge is None:
            return None
        return Outcome.APPROVED if charge.approved else Outcome.DECLINED

    async def refund(self, reference: UUID) -> None:
        """See `PaymentGateway.refund`."""
        async with self._database.connection() as connection:
            if not await queries.refund_sandbox_charge(connection, reference=reference):
                raise PaymentProviderError("the provider does not know this charge")
