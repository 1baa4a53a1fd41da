from __future__ import annotations

from sample.domain.words import count


def test_words_are_counted_in_whatever_case() -> None:
    found = count("To be or not to be")
    assert found.by_word == {"to": 2, "be": 2, "or": 1, "not": 1}
    assert found.total == 6
