"""One rule by which texts are compared without regard to case and spelling: applied once, stored, and searched in."""

from __future__ import annotations

import unicodedata


def search_key(text: str) -> str:
    """The form in which two spellings of one text are equal, and in which one is found inside another.

    Unicode's compatibility caseless matching (Unicode Standard, section 3.13, D146): `ß` is `ss`, a full-width letter
    is the plain one, `İ` is `i` with a dot above, however it was typed. Both sides of a comparison go through this
    function, never through a database's `lower()`, whose rules follow its collation. Idempotent.
    """
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", text).casefold())
    # Composed at the end: a letter with an accent is then one code point and no bare letter is found inside of it.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", folded.casefold()))
