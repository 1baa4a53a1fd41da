"""Where mails are given: what is refused at the start, and how it is said."""

from __future__ import annotations

import pytest
from chassis.config import ConfigurationError, load
from notification.gateways.smtp import Server
from notification.settings import Settings

COMPLETE = {
    "JWKS_FILE": "/jwks.json",
    "DATABASE_URL": "postgresql://notification_service@host/notificationdb",
    "NATS_URL": "tls://host:4222",
    "NATS_CERTIFICATES": "/certificates",
    "SMTP_URL": "smtps://shop@mail.example",
}
PRODUCTION = {
    "ENVIRONMENT": "production",
    "TOKEN_ISSUER": "https://shop.example",
    "MAIL_FROM": "Shop <shop@shop.example>",
}


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtps://mail.example", Server("mail.example", 465, "implicit", "", "")),
        ("smtp://mail.example", Server("mail.example", 587, "starttls", "", "")),
        ("smtp://shop%40x:p%3Aw@mail.example:2525", Server("mail.example", 2525, "starttls", "shop@x", "p:w")),
        ("smtp://127.0.0.1:25?starttls=never", Server("127.0.0.1", 25, "never", "", "")),
        ("smtp://[::1]:25?starttls=required", Server("::1", 25, "starttls", "", "")),
    ],
)
def test_a_url_names_a_server(url: str, server: Server) -> None:
    assert Server.of(url) == server


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mail.example", "begins with smtp://"),
        ("http://mail.example", "begins with smtp://"),
        ("smtp://", "without a path"),
        ("smtp://mail.example/inbox", "without a path"),
        ("smtp://mail.example:secret", "a port that is none"),
        ("smtp://mail.example:70000", "a port that is none"),
        ("smtp://mail.example?starttls=maybe", "may end with"),
        ("smtp://mail.example?tls=no", "may end with"),
        ("smtps://mail.example?starttls=never", "may end with"),
        ("smtp://user@mail.example?starttls=never", "in the clear"),
    ],
)
def test_what_is_no_url_of_a_server_stops_the_start_and_is_not_repeated(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(Settings, COMPLETE | {"SMTP_URL": url})
    (problem,) = refused.value.problems
    assert problem.startswith("SMTP_URL: ")
    assert said in problem
    assert "mail.example" not in problem


def test_production_sends_no_mail_in_the_clear_and_says_who_writes() -> None:
    load(Settings, COMPLETE | PRODUCTION)
    clear = "smtp://mail.example:25?starttls=never"
    load(Settings, COMPLETE | {"SMTP_URL": clear})
    with pytest.raises(ConfigurationError, match=r"SMTP_URL.*whoever is on the way"):
        load(Settings, COMPLETE | PRODUCTION | {"SMTP_URL": clear})
    with pytest.raises(ConfigurationError, match=r"MAIL_FROM.*name who writes"):
        load(Settings, COMPLETE | PRODUCTION | {"MAIL_FROM": "Backend <no-reply@backend.local>"})


@pytest.mark.parametrize(
    "sender", ["", "Shop", "a@b@c", "Shop <>", "Shop <x@>", "Shöp <ü@example.com>", "@example.com"]
)
def test_a_sender_has_an_address(sender: str) -> None:
    with pytest.raises(ConfigurationError, match="MAIL_FROM"):
        load(Settings, COMPLETE | {"MAIL_FROM": sender})
