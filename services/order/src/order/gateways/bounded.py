"""A payment provider for which nobody waits longer than a set time, whatever it does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar
from uuid import UUID

from order.domain.errors import PaymentTimeoutError
from order.domain.money import Money
from order.gateways.payment import ChargeOutcome, PaymentGateway, RefundOutcome

T = TypeVar("T")


class BoundedGateway:
    """Bounds every call of another `PaymentGateway` in time; what it has not answered by then may still happen.

    Args:
        gateway: the provider.
        seconds: how long one call may take.
    """

    def __init__(self, gateway: PaymentGateway, seconds: float) -> None:
        self._gateway = gateway
        self._seconds = seconds

    async def charge(self, reference: UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        """See `PaymentGateway.charge`."""
        return await self._in_time(self._gateway.charge(reference, amount, payment_token))

    async def resolve(self, reference: UUID) -> ChargeOutcome:
        """See `PaymentGateway.resolve`."""
        return await self._in_time(self._gateway.resolve(reference))

    async def refund(self, reference: UUID) -> RefundOutcome:
        """See `PaymentGateway.refund`."""
        return await self._in_time(self._gateway.refund(reference))

    async def _in_time(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._seconds):
                return await call
        except TimeoutError as error:
            raise PaymentTimeoutError from error
