"""Money and moments as people of a locale read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from chassis.currencies import EXPONENTS


@dataclass(frozen=True, slots=True)
class Format:
    """How a locale writes them.

    Attributes:
        thousands, decimal: what stands between groups of three digits, and before the fraction.
        months: their names, from January on.
        moment: of day, month, year, hour and minute; in UTC, and it says so.
    """

    thousands: str
    decimal: str
    months: tuple[str, ...]
    moment: str

    def money(self, amount_minor: int, currency: str) -> str:
        """An amount in a currency's minor unit, with the currency's code: "1,234.50 EUR".

        Raises:
            KeyError: there is no such currency (ISO 4217).
        """
        amount = Decimal(amount_minor).scaleb(-EXPONENTS[currency])
        digits = f"{amount:,.{EXPONENTS[currency]}f}"
        return digits.translate({ord(","): self.thousands, ord("."): self.decimal}) + f" {currency}"

    def when(self, moment: datetime) -> str:
        """A moment, in UTC: whoever is written to may be anywhere."""
        at = moment.astimezone(UTC)
        return self.moment.format(
            day=at.day, month=self.months[at.month - 1], year=at.year, hour=f"{at.hour:02}", minute=f"{at.minute:02}"
        )


# By the name of a locale, which is that of its directory of templates.
FORMATS: Mapping[str, Format] = {
    "en": Format(
        thousands=",",
        decimal=".",
        months=(
            "January", "February", "March", "April", "May", "June",
            "July", "August", "September", "October", "November", "December",
        ),
        moment="{day} {month} {year}, {hour}:{minute} UTC",
    )
}  # fmt: skip
