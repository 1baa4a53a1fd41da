"""What can go wrong, in the domain's words. `reason` names the row of the error table (api/errors.yaml)."""

from __future__ import annotations

from typing import ClassVar


class DomainError(Exception):
    """A rule of the domain was broken; safe to show to a client."""

    reason: ClassVar[str]

    def __init__(self, message: str = "", **facts: str) -> None:
        super().__init__(message)
        self.facts = facts


class NotFoundError(DomainError):
    """It does not exist, or is not the caller's to see."""

    reason = "NOT_FOUND"


class UnknownProductError(DomainError):
    """An order line names a product that does not exist."""

    reason = "UNKNOWN_PRODUCT"


class MixedCurrenciesError(DomainError):
    """Amounts of two currencies were to be added."""

    reason = "MIXED_CURRENCIES"

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class UnknownCurrencyError(DomainError):
    """ISO 4217 has no such currency, or it has no minor unit."""

    reason = "UNKNOWN_CURRENCY"


class OrderTooLargeError(DomainError):
    """The lines come to more than an order may."""

    reason = "ORDER_TOO_LARGE"


class TooManyUnpaidOrdersError(DomainError):
    """The user has placed too many orders lately without paying them."""

    reason = "TOO_MANY_UNPAID_ORDERS"


class TooMuchUnpaidError(DomainError):
    """The user has lately had too many pieces of one product reserved without paying them; the facts name it."""

    reason = "TOO_MUCH_UNPAID"


class OutOfStockError(DomainError):
    """Some lines want more than there is; the facts map product ids to what is available."""

    reason = "OUT_OF_STOCK"


class StockBelowZeroError(DomainError):
    """A stock adjustment would take more than there is."""

    reason = "STOCK_BELOW_ZERO"


class StockTooLargeError(DomainError):
    """A stock adjustment would make more than can be counted."""

    reason = "STOCK_TOO_LARGE"


class SkuTakenError(DomainError):
    """Another product has the SKU."""

    reason = "SKU_TAKEN"


class IllegalTransitionError(DomainError):
    """The state machine does not know this transition."""

    reason = "ILLEGAL_TRANSITION"


class StaleVersionError(DomainError):
    """The caller's copy is not the current one."""

    reason = "STALE_VERSION"


class PaymentInProgressError(DomainError):
    """Another attempt to pay this order has no outcome yet."""

    reason = "PAYMENT_IN_PROGRESS"


class TooManyDeclinedPaymentsError(DomainError):
    """Payments of the order were declined as often as one order's may be."""

    reason = "TOO_MANY_DECLINED_PAYMENTS"


class PaymentDeclinedError(DomainError):
    """The provider declined."""

    reason = "PAYMENT_DECLINED"


class PaymentTimeoutError(DomainError):
    """The provider did not answer in time; the outcome is unknown yet."""

    reason = "PAYMENT_TIMEOUT"


class PaymentProviderError(DomainError):
    """The provider failed; this call of it has charged nothing."""

    reason = "PAYMENT_PROVIDER_ERROR"


class IdempotencyKeyReusedError(DomainError):
    """The key was used for a different request."""

    reason = "IDEMPOTENCY_KEY_REUSED"


class RequestInProgressError(DomainError):
    """A request with the same key is running right now."""

    reason = "REQUEST_IN_PROGRESS"
