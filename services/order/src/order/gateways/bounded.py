"""A payment provider for which nobody waits longer than a set time, and that fails in no other way than is foreseen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar
from uuid import UUID

import structlog

from order.domain.errors import PaymentProviderError, PaymentTimeoutError
from order.domain.money import Money
from order.gateways.payment import ChargeOutcome, PaymentGateway, RefundOutcome

T = TypeVar("T", ChargeOutcome, RefundOutcome)

_log = structlog.get_logger(__name__)


class BoundedGateway:
    """Bounds every call of another `PaymentGateway` in time; what it has not answered by then may still happen.

    So may what it fails at in any way that `PaymentGateway` does not name: a connection that is cut, an answer that
    nobody understands. Whoever asked is told that nobody knows, as after an answer that did not come.

    Args:
        gateway: the provider.
        seconds: how long one call may take.
    """

    def __init__(self, gateway: PaymentGateway, seconds: float) -> None:
        self._gateway = gateway
        self._seconds = seconds

    async def charge(self, reference: UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        """See `PaymentGateway.charge`."""
        return await self._in_time(self._gateway.charge(reference, amount, payment_token), ChargeOutcome)

    async def resolve(self, reference: UUID) -> ChargeOutcome:
        """See `PaymentGateway.resolve`."""
        return await self._in_time(self._gateway.resolve(reference), ChargeOutcome)

    async def refund(self, reference: UUID) -> RefundOutcome:
        """See `PaymentGateway.refund`."""
        return await self._in_time(self._gateway.refund(reference), RefundOutcome)

    async def _in_time(self, call: Awaitable[T], outcomes: type[T]) -> T:
        try:
            async with asyncio.timeout(self._seconds):
                # Of a string that is no outcome, or of nothing at all, this makes an error.
                return outcomes(await call)
        except (PaymentProviderError, PaymentTimeoutError):
            raise
        except TimeoutError as error:
            raise PaymentTimeoutError from error
        except Exception as error:
            _log.exception("payment provider failed in an unforeseen way")
            raise PaymentTimeoutError("the payment provider's answer was not understood") from error
