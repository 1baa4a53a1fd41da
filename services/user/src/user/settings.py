"""What the User service is configured with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from chassis.config import CursorSettings, DatabaseSettings, EventSettings, PasswordFile, TokenSettings, ValkeyUrl
from pydantic import Field, SecretStr


class KeySettings(TokenSettings):
    """Variables of whoever has the keys that sign access tokens."""

    signing_keys_dir: Annotated[
        Path,
        Field(
            description="Directory of ES256 private keys (PEM, named by time: 20261231T235959.pem); read again when it changes"
        ),
    ]
    signing_key_activation_seconds: Annotated[
        float, Field(description="Time from a key's making until it signs; more than any verifier caches keys", ge=0)
    ] = 600.0


class Settings(DatabaseSettings, CursorSettings, EventSettings, KeySettings):
    """Variables of the User service."""

    valkey_url: ValkeyUrl
    valkey_password_file: PasswordFile = None
    password_hash_workers: Annotated[
        int, Field(description="Password hashes computed at once (each takes one core and 19 MiB)", ge=1, le=64)
    ] = 2
    password_hash_queue: Annotated[
        int, Field(description="Callers that may wait for a hash; more are refused with 503", ge=1, le=10000)
    ] = 64
    service_names: Annotated[
        str, Field(description="Comma-separated names of the service and of who runs it: no password is made of them")
    ] = "backend"
    user_cache_seconds: Annotated[
        float, Field(description="How long an unused user record stays cached", gt=0, le=86400)
    ] = 300.0
    refresh_token_secret: Annotated[
        SecretStr,
        Field(description="Makes refresh and device tokens; shared by all replicas of the service", min_length=32),
    ]
    refresh_grace_seconds: Annotated[
        float,
        Field(description="How long a client may repeat its last exchange of a refresh token", ge=0, le=60),
    ] = 10.0
    sessions_a_day: Annotated[
        int, Field(description="Sessions that one address may begin in a day; further ones last an hour unused", ge=1)
    ] = 2000
    session_days: Annotated[float, Field(description="Life of a session, however active", gt=0, le=400)] = 30.0
    session_idle_days: Annotated[float, Field(description="Life of a session that is not refreshed", gt=0, le=400)] = (
        14.0
    )
