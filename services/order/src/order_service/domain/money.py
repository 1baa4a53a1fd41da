"""Money: an integer of minor units with its currency."""

from __future__ import annotations

from dataclasses import dataclass

from order_service.domain.errors import MixedCurrenciesError


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
