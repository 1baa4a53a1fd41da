"""What the BFF is configured with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from chassis.config import Settings as ChassisSettings
from pydantic import Field


class Settings(ChassisSettings):
    """Variables of the BFF."""

    signing_keys_dir: Annotated[
        Path, Field(description="Directory of ES256 private keys (PEM); the newest file signs, all verify")
    ]
    token_issuer: Annotated[str, Field(description="`iss` of the access tokens", min_length=1)] = (
        "https://backend.local"
    )
    token_audience: Annotated[str, Field(description="`aud` of the access tokens", min_length=1)] = "backend-api"
    access_token_seconds: Annotated[int, Field(description="Life of an access token", ge=1, le=3600)] = 300
    session_days: Annotated[float, Field(description="Life of a session, however active", gt=0, le=400)] = 30.0
    session_idle_days: Annotated[float, Field(description="Life of a session that is not refreshed", gt=0, le=400)] = (
        14.0
    )
    max_body_bytes: Annotated[int, Field(description="Largest request body; 413 over it", ge=1024, le=1048576)] = 65536
