"""Cursors: what was signed comes back, and nothing else is taken."""

from __future__ import annotations

import base64

import pytest
from chassis import opaque
from chassis.cursors import CursorSigner
from chassis.errors import ServiceError
from hypothesis import given
from hypothesis import strategies as st

printable = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


SIGNER = CursorSigner("s" * 32)


@given(printable, st.lists(printable, min_size=1, max_size=3))
def test_a_cursor_gives_its_key_back(scope: str, key: list[str]) -> None:
    assert SIGNER.decode(scope, SIGNER.encode(scope, key), len(key)) == key


@given(st.lists(printable, min_size=1, max_size=2), st.data())
def test_any_change_is_noticed(key: list[str], data: st.DataObject) -> None:
    cursor = SIGNER.encode("list", key)
    position = data.draw(st.integers(0, len(cursor) - 1))
    letter = data.draw(st.sampled_from("ABCabc019-_"))
    changed = cursor[:position] + letter + cursor[position + 1 :]
    if changed == cursor:
        return
    with pytest.raises(ServiceError, match="INVALID_CURSOR"):
        SIGNER.decode("list", changed, len(key))


def test_another_spelling_of_the_same_bytes_is_invalid() -> None:
    # 16 bytes of signature and 3 of payload: the last letter holds four bits that base64 ignores.
    cursor = SIGNER.encode("list", ["a"])
    respelled = cursor[:-1] + chr(ord(cursor[-1]) + 1)
    assert base64.urlsafe_b64decode(respelled + "==") == base64.urlsafe_b64decode(cursor + "==")
    with pytest.raises(ServiceError, match="INVALID_CURSOR"):
        SIGNER.decode("list", respelled, 1)


@given(printable)
def test_text_that_is_no_cursor_is_invalid(text: str) -> None:
    if not text:
        assert SIGNER.decode("list", text, 1) is None
        return
    with pytest.raises(ServiceError):
        SIGNER.decode("list", text, 1)


@pytest.mark.parametrize(
    "payload", [b"", b"\x05", b"\xff", b"\x91\x05", b"\x91\xa1\xff", b"\x91\xa1a\x00", b"\xdd\xff\xff\xff\xff"]
)
def test_what_is_signed_and_is_no_key_is_invalid(payload: bytes) -> None:
    with pytest.raises(ServiceError, match="INVALID_CURSOR"):
        SIGNER.decode("list", opaque.encode(SIGNER._signature("list", payload) + payload), 1)


def test_another_secret_and_another_list_are_invalid() -> None:
    cursor = SIGNER.encode("list", ["a"])
    for signer, scope in ((CursorSigner("t" * 32), "list"), (SIGNER, "other")):
        with pytest.raises(ServiceError):
            signer.decode(scope, cursor, 1)
