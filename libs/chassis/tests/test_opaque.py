from __future__ import annotations

import secrets

import pytest
from chassis import opaque

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize("length", [0, 1, 2, 3, 16, 48, 52, 64])
def test_every_text_but_one_is_refused(length: int) -> None:
    raw = b"\xfb\xff" * 32 if length == 64 else secrets.token_bytes(length)
    text = opaque.encode(raw)
    assert opaque.decode(text) == raw
    others = [text[:-1] + last for last in ALPHABET] if text else []
    assert [other for other in others if opaque.decode(other) == raw] == ([text] if text else [])
    for other in (
        text + "=",
        text + "==",
        text + "====",
        text + "\n",
        " " + text,
        text + "!",
        text + "é",
        text + "A" * 5,
    ):
        assert opaque.decode(other) != raw, other
    standard = text.replace("-", "+").replace("_", "/")
    assert standard == text or opaque.decode(standard) is None


@pytest.mark.parametrize("text", ["A", "é", "\ud800", "A" * 100_001, "=", "A=A="])
def test_what_is_no_text_of_ours_is_nothing(text: str) -> None:
    assert opaque.decode(text) is None
