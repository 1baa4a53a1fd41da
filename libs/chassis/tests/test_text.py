from __future__ import annotations

import unicodedata

import pytest
from chassis.text import search_key
from hypothesis import given
from hypothesis import strategies as st

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("İstanbul Çay", "i̇stanbul çay"),
        ("STRASSE", "straße"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("e\u0301clair", "\u00c9CLAIR"),
        ("\uff2d\uff35\uff27", "mug"),
        ("\ufb01ne", "FINE"),
        ("\u1fb3", "\u03b1\u03b9"),
    ],
)
def test_two_spellings_of_one_text_are_equal(one: str, other: str) -> None:
    assert search_key(one) == search_key(other)


def test_different_letters_stay_different() -> None:
    assert search_key("\N{LATIN SMALL LETTER DOTLESS I}") != search_key("i")
    assert search_key("é") != search_key("e")


@given(texts)
def test_is_idempotent_and_the_same_for_every_case_and_form(text: str) -> None:
    key = search_key(text)
    assert search_key(key) == key
    for form in ("NFC", "NFD"):
        assert search_key(unicodedata.normalize(form, text)) == key
    assert search_key(text.casefold()) == key


@given(texts, texts)
def test_a_text_is_found_by_its_own_words(one: str, other: str) -> None:
    assert search_key(f"{one} x") in search_key(f"{one} x {other}")
