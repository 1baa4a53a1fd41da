"""Use cases around words."""

from __future__ import annotations

from sample.domain.words import WordCount, count


class WordUseCases:
    """Says something about texts; keeps nothing."""

    async def count(self, text: str) -> WordCount:
        """How often each word of the text occurs."""
        return count(text)
