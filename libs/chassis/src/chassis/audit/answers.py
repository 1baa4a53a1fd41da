"""The audit trail as services show it: `ListAuditRecords` of each of their contracts."""

from __future__ import annotations

from datetime import UTC
from uuid import UUID

from contracts.common.v1 import audit_pb2
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.audit import trail
from chassis.audit.acts import Act, Values
from chassis.audit.trail import Filter
from chassis.database import Database


class AuditHandlers:
    """The methods of an `AuditService`, whoever's: a servicer is a class of this one and the generated one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ListAuditRecords(
        self, request: audit_pb2.ListAuditRecordsRequest, _context: object
    ) -> audit_pb2.ListAuditRecordsResponse:
        """See the contract."""
        before = UUID(request.before_id) if request.HasField("before_id") else None
        async with self._database.connection() as connection:
            found = await trail.page(connection, _filter(request.filter), before, request.limit)
        return audit_pb2.ListAuditRecordsResponse(records=[_record(act) for act in found])


def _filter(message: audit_pb2.AuditFilter) -> Filter:
    return Filter(
        actor=message.actor if message.HasField("actor") else None,
        subject=message.subject if message.HasField("subject") else None,
        action=message.action if message.HasField("action") else None,
        occurred_from=message.occurred_from.ToDatetime(tzinfo=UTC) if message.HasField("occurred_from") else None,
        occurred_before=message.occurred_before.ToDatetime(tzinfo=UTC) if message.HasField("occurred_before") else None,
    )


def _record(act: Act) -> audit_pb2.AuditRecord:
    occurred_at = Timestamp()
    occurred_at.FromDatetime(act.time)
    return audit_pb2.AuditRecord(
        id=str(act.id),
        occurred_at=occurred_at,
        action=act.action,
        actor=act.actor,
        subject=act.subject,
        request_id=act.request_id,
        address=act.address,
        before=_struct(act.before),
        after=_struct(act.after),
    )


def _struct(values: Values) -> Struct:
    struct = Struct()
    struct.update(dict(values))
    return struct
