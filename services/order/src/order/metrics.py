"""What the Order service counts of its domain, each at the one place where it happens.

How calls end, out of stock and declined included, is counted by method and outcome already (`chassis.metrics.work`).
"""

from __future__ import annotations

from chassis.metrics.families import Counter

from order.domain.order import TRANSITIONS, OrderStatus
from order.repository.queries import PaymentStatus

PLACED = "placed"


def step_name(before: OrderStatus, after: OrderStatus) -> str:
    """What a step is called."""
    return f"{before}_to_{after}"


TRANSITIONS_MADE = Counter(
    "backend_order_transitions_total",
    "Orders placed, and their steps from one status to another; counted a moment before the commit",
    transition=(PLACED, *(step_name(before, after) for before, afters in TRANSITIONS.items() for after in afters)),
)
PAYMENTS = Counter(
    "backend_payments_total",
    "Attempts to pay whose outcome was recorded; counted a moment before the commit",
    outcome=[status for status in PaymentStatus if status is not PaymentStatus.PROCESSING],
)
IDEMPOTENT_REQUESTS = Counter(
    "backend_idempotent_requests_total",
    "Requests with an idempotency key: the first, a try after one without an outcome, an answer again, the key of "
    "another request, or one that runs right now",
    result=("first", "resumed", "replay", "conflict", "in_progress"),
)
