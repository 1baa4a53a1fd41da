"""Money: an integer of minor units with its currency."""

from __future__ import annotations

from dataclasses import dataclass

from chassis.currencies import EXPONENTS

from order.domain.errors import MixedCurrenciesError, UnknownCurrencyError

# The largest price, and the largest total of an order: `Money.maximum` in the contract, far below the 2^53 that JSON
# carries safely.
MAX_MINOR = 1_000_000_000_000
# The largest sum over orders that is shown, the largest integer that every JSON reader keeps (RFC 8259, section 6).
MAX_SUM_MINOR = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in the currency's minor unit (cents for EUR); never a fraction, never negative."""

    amount_minor: int
    # ISO 4217
    currency: str

    def __post_init__(self) -> None:
        if self.amount_minor < 0:
            raise ValueError(f"money cannot be negative: {self.amount_minor}")

    def __add__(self, other: Money) -> Money:
        """The sum.

        Raises:
            MixedCurrenciesError: the currencies differ; there is no exchange rate here.
        """
        if other.currency != self.currency:
            raise MixedCurrenciesError(self.currency, other.currency)
        return Money(self.amount_minor + other.amount_minor, self.currency)

    def __mul__(self, quantity: int) -> Money:
        """The price of `quantity` pieces."""
        return Money(self.amount_minor * quantity, self.currency)


def entered(amount_minor: int, currency: str) -> Money:
    """Check and make an amount that somebody enters. Stored amounts are not checked again.

    Raises:
        UnknownCurrencyError: ISO 4217 has no such currency, or it has no minor unit.
    """
    if currency not in EXPONENTS:
        raise UnknownCurrencyError(f"{currency} is not a currency with a minor unit")
    return Money(amount_minor, currency)
