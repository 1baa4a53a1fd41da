"""What the limiter is configured with."""

from __future__ import annotations

from typing import Annotated

from chassis.config import Settings as ChassisSettings
from pydantic import Field


class Settings(ChassisSettings):
    """Variables of the limiter."""

    rate_limit_scale: Annotated[
        float, Field(description="Multiplies every limit of the contract", gt=0, le=1_000_000)
    ] = 1.0
    connections_per_minute: Annotated[
        int, Field(description="New connections one address may open in any minute", ge=1, le=1_000_000)
    ] = 600
