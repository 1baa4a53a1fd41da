"""What the service is configured with."""

from __future__ import annotations

from chassis.config import TokenSettings


class Settings(TokenSettings):
    """Variables of the service: those that every service has which verifies its callers."""
