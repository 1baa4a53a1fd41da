"""How much one user may have reserved without paying for it, so that nobody keeps the stock from everybody else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from order.domain.errors import TooManyUnpaidOrdersError, TooMuchUnpaidError

# How many orders are read when only pieces are limited.
_MOST_ORDERS = 1000


@dataclass(frozen=True, slots=True)
class Unpaid:
    """What a user has reserved and not paid within the window, the new order not counted."""

    orders: int
    pieces: Mapping[UUID, int]


@dataclass(frozen=True, slots=True)
class UnpaidLimits:
    """What one user may have reserved without paying; a limit of 0 does not limit."""

    orders: int
    # Of one product.
    pieces: int
    # For how long after it was placed an expired or cancelled order counts. Otherwise somebody could reserve the same stock
    # again and again.
    window: timedelta

    @property
    def orders_to_look_at(self) -> int:
        """How many unpaid orders have to be read: when there are more than the limit, their content does not matter."""
        return self.orders or (_MOST_ORDERS if self.pieces else 0)

    def check(self, unpaid: Unpaid, wanted: Mapping[UUID, int]) -> None:
        """Whether one more order of these products is within the limits.

        Raises:
            TooManyUnpaidOrdersError, TooMuchUnpaidError: no.
        """
        if self.orders and unpaid.orders >= self.orders:
            raise TooManyUnpaidOrdersError(
                f"at most {self.orders} orders without payment; pay one, or come back later", maximum=str(self.orders)
            )
        over = [i for i, quantity in wanted.items() if unpaid.pieces.get(i, 0) + quantity > self.pieces]
        if self.pieces and over:
            raise TooMuchUnpaidError(
                f"at most {self.pieces} pieces of one product without payment; pay first, or come back later",
                **{str(i): str(max(0, self.pieces - unpaid.pieces.get(i, 0))) for i in over},
            )
