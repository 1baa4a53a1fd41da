"""What the service is configured with."""

from __future__ import annotations

from chassis.config import DatabaseSettings


class Settings(DatabaseSettings):
    """Variables of the service: those that every service with a database has."""
