"""AuditService: what the chassis answers of the audit trail."""

from __future__ import annotations

from chassis.audit.answers import AuditHandlers as Answers
from contracts.order.v1.audit_pb2_grpc import AuditServiceServicer


class AuditHandlers(Answers, AuditServiceServicer):
    """The servicer."""
