"""What the Order service is configured with."""

from __future__ import annotations

from typing import Annotated, Literal

from chassis.config import CacheUrl, CursorSettings, DatabaseSettings, DevelopmentOnly, EventSettings, PasswordFile
from pydantic import Field


class Settings(DatabaseSettings, CursorSettings, EventSettings):
    """Variables of the Order service."""

    cache_url: CacheUrl
    cache_password_file: PasswordFile = None
    order_cache_seconds: Annotated[
        float, Field(description="How long an unused order or product stays cached", gt=0, le=86400)
    ] = 300.0
    payment_provider: Annotated[
        Literal["sandbox"],
        Field(description="Who moves the money; a real one is another `PaymentGateway` (gateways/payment.py)"),
        DevelopmentOnly("the sandbox moves no money, and no real provider ships", values=("sandbox",)),
    ] = "sandbox"
    payment_window_seconds: Annotated[
        float, Field(description="How long an unpaid order holds its stock", gt=0, le=86400)
    ] = 900.0
    payment_timeout_seconds: Annotated[
        float, Field(description="How long the payment provider may take to answer a call", gt=0, le=10)
    ] = 1.0
    max_declined_payments: Annotated[
        int,
        Field(description="Declined payments of one order, after which it cannot be paid; 0: any", ge=0, le=1000),
    ] = 10
    max_unpaid_orders: Annotated[
        int,
        Field(description="Orders one user may place without paying, in UNPAID_WINDOW_SECONDS; 0: any", ge=0, le=1000),
    ] = 20
    max_unpaid_pieces: Annotated[
        int,
        Field(
            description="Pieces of one product one user may reserve without paying, in UNPAID_WINDOW_SECONDS; 0: any",
            ge=0,
            le=1_000_000,
        ),
    ] = 20
    unpaid_window_seconds: Annotated[
        float,
        Field(description="How long an order counts as unpaid that expired or was cancelled", ge=0, le=604800),
    ] = 3600.0
    sweep_interval_seconds: Annotated[
        float, Field(description="How often unpaid orders are expired and stuck payments settled", gt=0, le=3600)
    ] = 1.0
    idempotency_retention_hours: Annotated[
        float, Field(description="How long an idempotency key is remembered", ge=1, le=720)
    ] = 24.0
