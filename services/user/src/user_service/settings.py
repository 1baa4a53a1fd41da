"""What the User service is configured with."""

from __future__ import annotations

from typing import Annotated

from chassis.config import DatabaseSettings
from pydantic import Field


class Settings(DatabaseSettings):
    """Variables of the User service."""

    password_hash_workers: Annotated[
        int, Field(description="Password hashes computed at once (each takes one core and 19 MiB)", ge=1, le=64)
    ] = 2
    password_hash_queue: Annotated[
        int, Field(description="Callers that may wait for a hash; more are refused with 503", ge=1, le=10000)
    ] = 64
    user_cache_seconds: Annotated[
        float, Field(description="How long an unused user record stays cached", gt=0, le=86400)
    ] = 300.0
