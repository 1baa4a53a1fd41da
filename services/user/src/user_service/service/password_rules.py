"""What a password may be, and how it is spelled before anything is made of it."""

from __future__ import annotations

import precis_i18n
from chassis.text import search_key

from user_service.domain.errors import InvalidFieldError
from user_service.repository.common_passwords import common_passwords

_SHORTEST = 10
# RFC 8265, section 4.2: NFC, every kind of space is the plain one, no control characters.
_OPAQUE = precis_i18n.get_profile("OpaqueString")


def normalized(password: str) -> str | None:
    """The one spelling of a password, whichever keyboard it was typed on; None when no password is spelled so."""
    try:
        return _OPAQUE.enforce(password)
    except UnicodeError:
        return None


def acceptable(password: str, *, field: str, email: str, display_name: str) -> str:
    """A new password in its one spelling (NIST SP 800-63B, section 3.1.1.2: what is guessed first is refused).

    Args:
        password: as it was typed.
        field: JSON pointer of the field that it came in.
        email: the address of its owner.
        display_name: their name.

    Raises:
        InvalidFieldError: it is too short, has control characters, is common, or is the owner's address or name.
    """
    spelled = normalized(password)
    if spelled is None:
        raise InvalidFieldError(field, "must not hold control characters")
    if len(spelled) < _SHORTEST:
        raise InvalidFieldError(field, f"must have at least {_SHORTEST} characters")
    key = search_key(spelled)
    if key in common_passwords():
        raise InvalidFieldError(field, "is one of the most common passwords")
    # `ada.lovelace1!` is the name as well.
    if _letters(key) in _names(email, display_name):
        raise InvalidFieldError(field, "must not be the address or the name")
    return spelled


def _names(email: str, display_name: str) -> set[str]:
    local, _, domain = email.rpartition("@")
    words = search_key(display_name).split()
    plain = [search_key(text) for text in (email, local, domain, display_name)]
    return {
        _letters(text) for text in (*plain, "".join(words), "".join(reversed(words)), " ".join(reversed(words)))
    } - {""}


def _letters(key: str) -> str:
    """Without everything but letters: what is added to a name to make it look like a password is digits and signs."""
    return "".join(letter for letter in key if letter.isalpha())
