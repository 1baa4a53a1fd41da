"""Payment providers that misbehave."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

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
    """A provider that answers from a list, and the last over and over, whatever it is asked; an exception is raised."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)

    async def charge(self, reference: uuid.UUID, amount: Money, payment_token: str) -> Any:  # type: ignore[explicit-any]
        return self._next()

    async def resolve(self, reference: uuid.UUID) -> Any:  # type: ignore[explicit-any]
        return self._next()

    async def refund(self, reference: uuid.UUID) -> Any:  # type: ignore[explicit-any]
        return self._next()

    def _next(self) -> object:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Remembering:
    """A provider with a memory of its own, which no backup of ours has in it."""

    def __init__(self) -> None:
        self.charged: dict[uuid.UUID, ChargeOutcome] = {}

    async def charge(self, reference: uuid.UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        outcome = ChargeOutcome.APPROVED if payment_token == "tok_approved" else ChargeOutcome.DECLINED
        return self.charged.setdefault(reference, outcome)

    async def resolve(self, reference: uuid.UUID) -> ChargeOutcome:
        return self.charged.setdefault(reference, ChargeOutcome.CLOSED)

    async def refund(self, reference: uuid.UUID) -> RefundOutcome:
        raise AssertionError


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
