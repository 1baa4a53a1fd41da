"""What a password may be, and how it is spelled before anything is made of it."""

from __future__ import annotations

import re
from collections.abc import Iterable

import precis_i18n
from chassis.text import search_key

from user.domain.choices import choices, without, without_core
from user.domain.errors import InvalidFieldError
from user.repository.common_passwords import common_passwords

_SHORTEST = 10
# A part of a name that has at least this length stands out in a password; shorter ones occur in many words.
_SHORTEST_PART = 4
# A password that is longer in this form (a few characters become eighteen) is judged by its beginning.
_JUDGED = 256
_NO_WORD = re.compile(r"[\W_]")
# RFC 8265, section 4.2: NFC, every kind of space is the plain one, no control characters.
_OPAQUE = precis_i18n.get_profile("OpaqueString")


def normalized(password: str) -> str | None:
    """The one spelling of a password, whichever keyboard it was typed on; None when no password is spelled so."""
    try:
        return _OPAQUE.enforce(password)
    except UnicodeError:
        return None


class PasswordRules:
    """Refuses passwords that are guessed first (NIST SP 800-63B, section 5.1.1.2; ADR 0019 says why by rules).

    Args:
        service_names: of the service and of who runs it.
    """

    def __init__(self, service_names: Iterable[str]) -> None:
        self._service = frozenset(_parts(service_names))
        self._common = common_passwords()
        self._longest = max(map(len, self._common))

    def acceptable(self, password: str, *, field: str, email: str, display_name: str) -> str:
        """A new password in its one spelling.

        Args:
            password: as it was typed.
            field: JSON pointer of the field that it came in.
            email: the address of its owner.
            display_name: their name.

        Raises:
            InvalidFieldError: the first rule that it breaks.
        """
        spelled = normalized(password)
        if spelled is None:
            raise InvalidFieldError(field, "must not hold control characters")
        if len(spelled) < _SHORTEST:
            raise InvalidFieldError(field, f"must have at least {_SHORTEST} characters")
        key = search_key(spelled)[:_JUDGED]
        if key in self._common:
            raise InvalidFieldError(field, "is one of the most common passwords")
        if _too_few(key):
            raise InvalidFieldError(field, "must be more than a repetition or a sequence")
        # `ada.lovelace1!` counts as the name, too.
        owner = _parts((email, display_name))
        if _letters(key) in _names(email, display_name) or any(map(_too_few, without(key, owner))):
            raise InvalidFieldError(field, "must be more than the address or the name")
        if any(map(_too_few, without(key, self._service))):
            raise InvalidFieldError(field, "must be more than the name of the service")
        if any(map(_too_few, without_core(key, self._common, self._longest))):
            raise InvalidFieldError(field, "must be more than a common password with something added")
        return spelled


def _too_few(text: str) -> bool:
    return choices(text, _SHORTEST) < _SHORTEST


def _parts(names: Iterable[str]) -> set[str]:
    """The words of names that are long enough to stand out."""
    words = (word for name in names for word in _NO_WORD.split(search_key(name)))
    return {word for word in words if len(word) >= _SHORTEST_PART}


def _names(email: str, display_name: str) -> set[str]:
    local, _, domain = email.rpartition("@")
    words = search_key(display_name).split()
    plain = [search_key(text) for text in (email, local, domain, display_name)]
    return {
        _letters(text) for text in (*plain, "".join(words), "".join(reversed(words)), " ".join(reversed(words)))
    } - {""}


def _letters(key: str) -> str:
    """The letters alone: digits and signs are what people add to a name to make a password of it."""
    return "".join(letter for letter in key if letter.isalpha())
