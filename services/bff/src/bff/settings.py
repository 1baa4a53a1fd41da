"""What the BFF is configured with."""

from __future__ import annotations

from typing import Annotated

from chassis.config import DevelopmentOnly, PasswordFile, TokenSettings, ValkeyUrl
from pydantic import Field


class Settings(TokenSettings):
    """Variables of the BFF."""

    valkey_url: ValkeyUrl
    valkey_password_file: PasswordFile = None
    allowed_origins: Annotated[
        str,
        Field(
            description="Origins besides the API's own whose pages may refresh and log out by cookie; comma-separated"
        ),
    ] = ""
    max_body_bytes: Annotated[int, Field(description="Largest request body; 413 over it", ge=1024, le=1048576)] = 65536
    security_contact: Annotated[
        str,
        Field(
            description="Whom to tell of a vulnerability, in /.well-known/security.txt: URIs, the preferred one first; comma-separated",
            pattern=r"^(mailto:|https://|tel:)[!-+\--~]+(,(mailto:|https://|tel:)[!-+\--~]+)*$",
        ),
        DevelopmentOnly("name who is told", values=("mailto:security@backend.local",)),
    ] = "mailto:security@backend.local"
