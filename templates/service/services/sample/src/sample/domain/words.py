"""Words, and how often they occur."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WordCount:
    """How often each word of a text occurs; words are what white space separates, whatever their case."""

    by_word: Mapping[str, int]

    @property
    def total(self) -> int:
        """The number of words."""
        return sum(self.by_word.values())


def count(text: str) -> WordCount:
    """What there is to say about the words of a text."""
    return WordCount(Counter(text.casefold().split()))
