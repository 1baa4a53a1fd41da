"""Money and moments as they are read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from notification.service.formats import FORMATS


@pytest.mark.parametrize(
    ("amount", "currency", "read"),
    [
        (0, "EUR", "0.00 EUR"),
        (5, "EUR", "0.05 EUR"),
        (123450, "EUR", "1,234.50 EUR"),
        (1234, "JPY", "1,234 JPY"),
        (1234567, "KWD", "1,234.567 KWD"),
        (2**53, "USD", "90,071,992,547,409.92 USD"),
    ],
)
def test_money_has_as_many_digits_as_its_currency(amount: int, currency: str, read: str) -> None:
    assert FORMATS["en"].money(amount, currency) == read


def test_a_moment_is_in_utc_and_says_so() -> None:
    at = datetime(2026, 11, 27, 1, 5, tzinfo=timezone(timedelta(hours=2)))
    assert FORMATS["en"].when(at) == "26 November 2026, 23:05 UTC"
    assert FORMATS["en"].when(datetime(2026, 1, 2, 3, 4, tzinfo=UTC)) == "2 January 2026, 03:04 UTC"


def test_each_locale_has_its_months() -> None:
    assert all(len(set(written.months)) == 12 for written in FORMATS.values())
