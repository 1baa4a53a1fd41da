"""The audit trail of all services, as one list."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from chassis.cursors import CursorSigner
from chassis.errors import ServiceError
from chassis.http.answers import json_answer
from contracts.bff.v1 import models, operations
from contracts.common.v1 import audit_pb2
from starlette.responses import Response

from bff import shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contracts.order.v1.audit_pb2_grpc import AuditServiceAsyncStub as OrderAuditStub
    from contracts.user.v1.audit_pb2_grpc import AuditServiceAsyncStub as UserAuditStub

Service = Literal["order", "user"]
# Finds out that a cursor was changed or belongs to another list. There is no secret to it: whoever may read the list may read all
# of it, and a place that somebody makes up is one that they could have turned the pages to.
_CURSORS = CursorSigner("")


class AuditHandlers:
    """listAuditRecords."""

    def __init__(self, user: UserAuditStub, order: OrderAuditStub) -> None:
        self._trails: Mapping[Service, UserAuditStub | OrderAuditStub] = {"order": order, "user": user}

    async def list_audit_records(self, query: operations.ListAuditRecordsQuery) -> Response:
        """GET /v1/admin/audit. Each service gives the page's worth of its own records; the newest of all are the page.

        All go on below the same id, so none of them is skipped or repeated, whoever of them the page before was of. A service that
        does not answer is an error: a trail with a hole in it would look whole.
        """
        wanted = _filter(query)
        scope = f"audit|{query.service or ''}|{wanted.SerializeToString(deterministic=True).hex()}"
        key = _CURSORS.decode(scope, query.cursor or "", length=1)
        request = audit_pb2.ListAuditRecordsRequest(limit=query.limit + 1, before_id=_id(key), filter=wanted)
        names: list[Service] = [query.service] if query.service else list(self._trails)
        pages = await asyncio.gather(*(self._trails[name].ListAuditRecords(request) for name in names))
        merged = heapq.merge(
            *(_of(name, page) for name, page in zip(names, pages, strict=True)),
            key=lambda found: found[1].id,
            reverse=True,
        )
        found = [shapes.audit_record(record, name) for name, record in merged]
        shown, more = found[: query.limit], len(found) > query.limit
        return json_answer(
            models.AuditPage(items=shown, next_cursor=_CURSORS.encode(scope, [shown[-1].id]) if more else None)
        )


def _of(name: Service, page: audit_pb2.ListAuditRecordsResponse) -> Iterator[tuple[Service, audit_pb2.AuditRecord]]:
    return ((name, record) for record in page.records)


# does not pass on: cursor, limit, service
def _filter(query: operations.ListAuditRecordsQuery) -> audit_pb2.AuditFilter:
    return audit_pb2.AuditFilter(
        actor=query.actor or None,
        subject=query.subject or None,
        action=query.action or None,
        occurred_from=shapes.timestamp("occurred_from", query.occurred_from),
        occurred_before=shapes.timestamp("occurred_before", query.occurred_before),
    )


def _id(key: list[str] | None) -> str | None:
    """Where a page begins, as its cursor says.

    Raises:
        ServiceError: INVALID_CURSOR; it is no id, and somebody has made the cursor up.
    """
    if key is None:
        return None
    try:
        return str(UUID(key[0]))
    except ValueError:
        raise ServiceError("INVALID_CURSOR") from None
