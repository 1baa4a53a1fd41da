"""What the Notification service is configured with."""

from __future__ import annotations

from email.errors import HeaderParseError
from email.headerregistry import Address
from email.utils import parseaddr
from typing import Annotated

from chassis.config import DatabaseSettings, DevelopmentOnly, EventSettings, PasswordFile
from pydantic import Field, SecretStr, ValidationInfo, field_validator

from notification.gateways.smtp import Server
from notification.service.formats import FORMATS


def address(text: str) -> Address:
    """An address with the name that stands before it, "Shop <shop@example.com>".

    Raises:
        ValueError: it is none.
    """
    name, found = parseaddr(text)
    try:
        made = Address(name, addr_spec=found)
    except (HeaderParseError, ValueError, IndexError):
        raise ValueError("is an address, or NAME <ADDRESS>") from None
    if not made.username or not made.domain or not found.isascii():
        raise ValueError("is an address of ASCII characters, or NAME <ADDRESS>")
    return made


class Settings(DatabaseSettings, EventSettings):
    """Variables of the Notification service."""

    smtp_url: Annotated[
        SecretStr,
        Field(
            description="The mail server: `smtps://USER@HOST:465` (TLS), `smtp://USER@HOST:587` (STARTTLS, which is "
            "demanded) or `smtp://HOST:25?starttls=never` (in the clear; not in production)"
        ),
    ]
    smtp_password_file: PasswordFile = None
    smtp_timeout_seconds: Annotated[
        float,
        Field(
            description="How long the mail server may take for each of its answers, but for whether it has a mail",
            gt=0,
            le=600,
        ),
    ] = 10.0
    mail_from: Annotated[
        str,
        Field(description="Whom mails come from: `NAME <ADDRESS>`; its domain is that of their Message-IDs"),
        DevelopmentOnly("name who writes", values=("Backend <no-reply@backend.local>",)),
    ] = "Backend <no-reply@backend.local>"
    mail_locale: Annotated[
        str,
        Field(description="In which language mails are written", pattern=f"^({'|'.join(FORMATS)})$"),
    ] = "en"
    mail_concurrency: Annotated[int, Field(description="Mails that a process sends at the same time", ge=1, le=100)] = 8
    mail_rate: Annotated[
        float, Field(description="Mails that a process begins in a second at most", gt=0, le=10_000)
    ] = 20.0
    mail_deadline_seconds: Annotated[
        float,
        Field(
            description="How long an attempt to send a mail may take, half of it until the server lets us in; a server "
            "that takes longer to say that it has a mail is given it again. One of a process that has died is repeated "
            "after one and a half of this",
            gt=0,
            le=3600,
        ),
    ] = 30.0
    mail_attempts: Annotated[
        int, Field(description="Attempts until a mail that the server does not take is given up", ge=1, le=100)
    ] = 20

    @field_validator("smtp_url")
    @classmethod
    def _is_a_server(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        server = Server.of(url.get_secret_value())
        if server.tls == "never" and info.data.get("environment") == "production":
            raise ValueError("has ?starttls=never: whoever is on the way would read every mail")
        return url

    @field_validator("mail_from")
    @classmethod
    def _is_an_address(cls, text: str) -> str:
        address(text)
        return text
