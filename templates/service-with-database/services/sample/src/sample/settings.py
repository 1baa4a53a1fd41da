"""What the service is configured with."""

from __future__ import annotations

from chassis.config import CursorSettings, DatabaseSettings


class Settings(DatabaseSettings, CursorSettings):
    """Variables of the service: those that every service with a database has."""
