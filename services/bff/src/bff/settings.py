"""What the BFF is configured with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from chassis.config import TokenSettings
from pydantic import Field


class Settings(TokenSettings):
    """Variables of the BFF."""

    signing_keys_dir: Annotated[
        Path,
        Field(
            description="Directory of ES256 private keys (PEM, named by time: 20261231T235959.pem); read again when it changes"
        ),
    ]
    signing_key_activation_seconds: Annotated[
        float, Field(description="Time from a key's making until it signs; more than any verifier caches keys", ge=0)
    ] = 600.0
    valkey_connections: Annotated[
        int,
        Field(description="Most connections to Valkey beside the pipelined one; callers wait", ge=1, le=1000),
    ] = 16
    access_token_seconds: Annotated[int, Field(description="Life of an access token", ge=1, le=3600)] = 300
    session_days: Annotated[float, Field(description="Life of a session, however active", gt=0, le=400)] = 30.0
    session_idle_days: Annotated[float, Field(description="Life of a session that is not refreshed", gt=0, le=400)] = (
        14.0
    )
    max_body_bytes: Annotated[int, Field(description="Largest request body; 413 over it", ge=1024, le=1048576)] = 65536
