"""Payment providers that misbehave."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import NoReturn

from order.domain.errors import (
    PaymentProviderError,
    PaymentTimeoutError,
)
from order.domain.money import Money
from order.gateways.payment import ChargeOutcome, PaymentGateway, RefundOutcome
from order.gateways.payment_sandbox import PaymentSandbox


class SlowWay:
    """A provider on whose way back somebody else settles the attempt first."""

    def __init__(self, sandbox: PaymentGateway) -> None:
        self._sandbox = sandbox
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def charge(self, reference: uuid.UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        outcome = await self._sandbox.charge(reference, amount, payment_token)
        if self.meanwhile is not None:
            await self.meanwhile()
        return outcome

    async def resolve(self, reference: uuid.UUID) -> ChargeOutcome:
        return await self._sandbox.resolve(reference)

    async def refund(self, reference: uuid.UUID) -> RefundOutcome:
        return await self._sandbox.refund(reference)


class Broken:
    """A provider of whom some references cannot be asked."""

    def __init__(self, sandbox: PaymentSandbox) -> None:
        self._sandbox = sandbox
        self.poison: set[uuid.UUID] = set()

    async def charge(self, reference: uuid.UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        return await self._sandbox.charge(reference, amount, payment_token)

    async def resolve(self, reference: uuid.UUID) -> ChargeOutcome:
        if reference in self.poison:
            raise ZeroDivisionError
        return await self._sandbox.resolve(reference)

    async def refund(self, reference: uuid.UUID) -> RefundOutcome:
        if reference in self.poison:
            raise ZeroDivisionError
        return await self._sandbox.refund(reference)


class Away:
    """A provider that charges and does not give back: it fails whenever it is asked to."""

    def __init__(self, sandbox: PaymentSandbox) -> None:
        self._sandbox = sandbox

    async def charge(self, reference: uuid.UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        return await self._sandbox.charge(reference, amount, payment_token)

    async def resolve(self, reference: uuid.UUID) -> ChargeOutcome:
        return await self._sandbox.resolve(reference)

    async def refund(self, reference: uuid.UUID) -> RefundOutcome:
        raise PaymentProviderError


class Hanging:
    """A provider that takes every call and answers none."""

    async def charge(self, reference: uuid.UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        await self._for_ever()

    async def resolve(self, reference: uuid.UUID) -> ChargeOutcome:
        await self._for_ever()

    async def refund(self, reference: uuid.UUID) -> RefundOutcome:
        await self._for_ever()

    async def _for_ever(self) -> NoReturn:
        while True:
            await asyncio.Event().wait()


class Late:
    """A provider that was given up on and acts all the same, later; then it fails once, when it is asked again."""

    def __init__(self, sandbox: PaymentSandbox) -> None:
        self._sandbox = sandbox
        self.arrive: Callable[[], Awaitable[ChargeOutcome]] | None = None
        self.failures = 1

    async def charge(self, reference: uuid.UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        if self.arrive is None:
            self.arrive = lambda: self._sandbox.charge(reference, amount, payment_token)
            raise PaymentTimeoutError
        if self.failures:
            self.failures -= 1
            raise PaymentProviderError
        return await self._sandbox.charge(reference, amount, payment_token)

    async def resolve(self, reference: uuid.UUID) -> ChargeOutcome:
        return await self._sandbox.resolve(reference)

    async def refund(self, reference: uuid.UUID) -> RefundOutcome:
        return await self._sandbox.refund(reference)


class Scripted:
    """A provider that answers from a list, whatever it is asked; an exception is raised."""

    def __init__(self, *answers: ChargeOutcome | BaseException) -> None:
        self._answers = list(answers)

    async def charge(self, reference: uuid.UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        return self._next()

    async def resolve(self, reference: uuid.UUID) -> ChargeOutcome:
        return self._next()

    async def refund(self, reference: uuid.UUID) -> RefundOutcome:
        raise AssertionError

    def _next(self) -> ChargeOutcome:
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Failing:
    """A provider that acts, and then fails as it is told to."""

    def __init__(self, sandbox: PaymentSandbox) -> None:
        self._sandbox = sandbox
        self.failure: Exception | None = None

    async def charge(self, reference: uuid.UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        outcome = await self._sandbox.charge(reference, amount, payment_token)
        self._fail()
        return outcome

    async def resolve(self, reference: uuid.UUID) -> ChargeOutcome:
        outcome = await self._sandbox.resolve(reference)
        self._fail()
        return outcome

    async def refund(self, reference: uuid.UUID) -> RefundOutcome:
        self._fail()
        return await self._sandbox.refund(reference)

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure
