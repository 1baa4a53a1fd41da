"""Whom security.txt names, and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bff.handlers.meta import MetaHandlers
from bff.settings import Settings
from chassis.config import ConfigurationError, load
from chassis.tokens import JwksFile

COMPLETE = {"VALKEY_URL": "valkey://localhost", "JWKS_FILE": "/jwks.json"}
PRODUCTION = {"ENVIRONMENT": "production", "TOKEN_ISSUER": "https://shop.example", "TOKEN_AUDIENCE": "shop"}


class Clock:
    """Passes when it is told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


async def test_it_is_valid_whenever_it_is_read_and_for_less_than_a_year(tmp_path: Path) -> None:
    clock = Clock()
    handlers = MetaHandlers(keys(tmp_path), ["mailto:a@shop.example", "https://shop.example/report"], clock)
    for _ in range(3):
        answer = await handlers.get_security_txt()
        *contacts, expires = bytes(answer.body).decode().splitlines()
        assert contacts == ["Contact: mailto:a@shop.example", "Contact: https://shop.example/report"]
        # RFC 9116, 2.5.5: less than a year is recommended.
        until = datetime.fromisoformat(expires.removeprefix("Expires: "))
        assert timedelta(days=7) < until - clock.now < timedelta(days=365)
        clock.now += timedelta(days=400)


def keys(directory: Path) -> JwksFile:
    path = directory / "jwks.json"
    path.write_text('{"keys": []}', encoding="utf-8")
    return JwksFile(path)


def test_production_does_not_start_with_nobody() -> None:
    with pytest.raises(ConfigurationError, match=r"SECURITY_CONTACT.*name who is told"):
        load(Settings, COMPLETE | PRODUCTION)
    assert started(PRODUCTION, "mailto:security@shop.example").security_contact == "mailto:security@shop.example"


@pytest.mark.parametrize("contacts", ["mailto:a@shop.example,https://shop.example/report", "tel:+1-201-555-0123"])
def test_contacts_are_uris(contacts: str) -> None:
    assert started({}, contacts).security_contact == contacts


@pytest.mark.parametrize(
    "contacts",
    ["", "security@shop.example", "http://shop.example", "mailto:a@b.example\nExpires: x", "mailto:a,", "mailto:a b"],
)
def test_what_is_no_uri_or_a_line_more_is_refused(contacts: str) -> None:
    with pytest.raises(ConfigurationError, match="SECURITY_CONTACT"):
        started({}, contacts)


def started(variables: dict[str, Any], contacts: str) -> Settings:
    return load(Settings, COMPLETE | variables | {"SECURITY_CONTACT": contacts})
