"""SampleService: protobuf to use cases and back."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from chassis import context
from chassis.cursors import CursorSigner
from contracts.sample.v1 import sample_pb2
from contracts.sample.v1.sample_pb2_grpc import SampleServiceServicer
from google.protobuf.timestamp_pb2 import Timestamp

from sample.domain.entry import Content, Entry
from sample.service.entries import EntryUseCases


class EntryHandlers(SampleServiceServicer):
    """The servicer."""

    def __init__(self, entries: EntryUseCases, cursors: CursorSigner) -> None:
        self._entries = entries
        self._cursors = cursors

    async def CreateEntry(self, request: sample_pb2.CreateEntryRequest, _context: object) -> sample_pb2.Entry:
        """See the contract."""
        content = Content(text=request.text)
        return _message(await self._entries.create(_user_id(), content))

    async def GetEntry(self, request: sample_pb2.GetEntryRequest, _context: object) -> sample_pb2.Entry:
        """See the contract."""
        return _message(await self._entries.get(_user_id(), UUID(request.id)))

    async def ListEntries(
        self, request: sample_pb2.ListEntriesRequest, _context: object
    ) -> sample_pb2.ListEntriesResponse:
        """See the contract."""
        user_id, limit = _user_id(), request.page.limit
        scope = f"entries|{user_id}"
        key = self._cursors.decode(scope, request.page.cursor, length=2)
        after = (datetime.fromisoformat(key[0]), UUID(key[1])) if key else None
        # One more than is shown says whether there is another page.
        found = await self._entries.page(user_id, after, limit + 1)
        shown, more = found[:limit], len(found) > limit
        return sample_pb2.ListEntriesResponse(
            entries=[_message(entry) for entry in shown],
            next_cursor=self._cursors.encode(scope, [shown[-1].created_at.isoformat(), str(shown[-1].id)])
            if more
            else "",
        )


def _user_id() -> UUID:
    return UUID(context.caller().user_id)


def _message(entry: Entry) -> sample_pb2.Entry:
    created_at = Timestamp()
    created_at.FromDatetime(entry.created_at)
    return sample_pb2.Entry(
        id=str(entry.id),
        user_id=str(entry.user_id),
        text=entry.content.text,
        created_at=created_at,
    )
