"""SampleService: protobuf to use cases and back."""

from __future__ import annotations

from contracts.sample.v1 import sample_pb2
from contracts.sample.v1.sample_pb2_grpc import SampleServiceServicer

from sample.service.words import WordUseCases


class WordHandlers(SampleServiceServicer):
    """The servicer."""

    def __init__(self, words: WordUseCases) -> None:
        self._words = words

    async def CountWords(
        self, request: sample_pb2.CountWordsRequest, _context: object
    ) -> sample_pb2.CountWordsResponse:
        """See the contract."""
        counted = await self._words.count(request.text)
        return sample_pb2.CountWordsResponse(total=counted.total, by_word=counted.by_word)
