"""What a contract says about one operation of an HTTP API."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.permissions import Permission
from msgspec import Struct


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How often one caller may call one operation in any window of `seconds`."""

    requests: int
    seconds: int
    # Counted over all edges together (by the limiter), or in each edge for itself.
    globally: bool


@dataclass(frozen=True, slots=True)
class Operation:
    """What the contract says about one operation; `query` and `headers` validate its parameters."""

    id: str
    handler: str
    method: str
    path: str
    permission: Permission | None
    anonymous: bool
    success: int
    media_type: str
    # Seconds until it is given up.
    timeout: float
    rate_limit: RateLimit
    # What it competes with for a process's slots (chassis.admission).
    operation_class: str
    # No method that is idempotent (RFC 9110, section 9.2.2), and no key declared: a key sent is refused.
    refuses_idempotency_key: bool = False
    # The name of the model it answers with.
    answer: str | None = None
    body: type[Struct] | None = None
    query: type[Struct] | None = None
    headers: type[Struct] | None = None
