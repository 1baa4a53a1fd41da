"""What the limiter is configured with."""

from __future__ import annotations

from typing import Annotated

from chassis.config import DevelopmentOnly, PasswordFile, ValkeyUrl
from chassis.config import Settings as ChassisSettings
from pydantic import Field


class Settings(ChassisSettings):
    """Variables of the limiter."""

    valkey_url: ValkeyUrl
    valkey_password_file: PasswordFile = None
    rate_limit_scale: Annotated[
        float,
        Field(description="Multiplies every limit of the contract", gt=0, le=1_000_000),
        DevelopmentOnly("the contract says what the limits are", above=1.0),
    ] = 1.0
    connections_per_address: Annotated[
        int, Field(description="Connections one address may open in any CONNECTION_SECONDS", ge=1, le=1_000_000)
    ] = 1200
    connection_seconds: Annotated[
        int,
        Field(
            description="Longer than the edge keeps a connection, and how long a lost lease of one counts",
            ge=1,
            le=86_400,
        ),
    ] = 300
