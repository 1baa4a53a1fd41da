"""One form for every spelling of an address."""

from __future__ import annotations

import unicodedata

import pytest
from user.domain.email_address import canonical
from user.domain.errors import InvalidFieldError


@pytest.mark.parametrize(
    ("spelled", "form"),
    [
        ("Ada.Lovelace+x@Example.COM", "ada.lovelace+x@example.com"),
        ("ada@Bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
        (unicodedata.normalize("NFD", "Ådá@example.com"), unicodedata.normalize("NFC", "ådá@example.com")),
        ("\uff21\uff44\uff41@example.com", "ada@example.com"),
        ("\u212aelvin@example.com", "kelvin@example.com"),
        ("ЯКОВ@пример.рф", "яков@xn--e1afmkfd.xn--p1ai"),
        ("a@localhost", "a@localhost"),
    ],
)
def test_an_address_has_one_form(spelled: str, form: str) -> None:
    assert canonical(spelled) == form
    assert canonical(form) == form


def test_letters_that_only_look_alike_in_some_database_are_different() -> None:
    assert canonical("adm\u0130n@example.com") != canonical("admin@example.com")
    assert canonical("adm\u0131n@example.com") != canonical("admin@example.com")


@pytest.mark.parametrize(
    "address",
    [
        "", "@", "a", "@b.de", "a@", "a@b.", "a@b\u3002", "a@b..de", "a@.b.de", "<a@b.de>", "a@b.de>", "\uff1ca@b.de",
        "a@@b.de", "a b@c.de", "a\u00a0b@c.de", "a\u2003b@c.de", '"a b"@c.de', "a(x)@b.de", "a,b@c.de", "a;b@c.de",
        ".a@b.de", "a.@b.de", "a..b@c.de", "a\x00@b.de", "a\x7f@b.de", "a\x85@b.de", "a\u200b@b.de", "a\u200d@b.de",
        "a\u00ad@b.de", "a\u034f@b.de", "a\u2060@b.de", "\ufeffa@b.de", "a\u202eb@c.de", "a\u2066b@c.de", "a\u3164@b.de",
        "a\ue000@b.de", "a\U000e0041@b.de", "a@b\u202e.de", "a@b\u200b.de", "a@b c.de", "a@-b.de", "a@b_c.de", "a@xn--a",
        "a@[127.0.0.1]", "a" * 65 + "@b.de", "a@" + "b" * 64 + ".de", "a@" + "b." * 130 + "de", "\ud800@b.de",
    ],
)  # fmt: skip
def test_what_is_no_address_or_misleads_is_refused(address: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        canonical(address)
    assert caught.value.violations == (("/email", "must be an email address"),)
