"""One error type that crosses every boundary, and its two wire forms.

The table itself is `api/errors.yaml` (generated as `contracts.errors`): a reason, its HTTP status, its gRPC code.
A domain raises its own exceptions, which only carry a `reason` of that table; this module turns them into
`ServiceError`, and `ServiceError` into problem+json (RFC 9457) or a gRPC status with google.rpc details, and back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import grpc
from contract_runtime.problem import FieldError, Problem
from contracts.errors import ERRORS, ErrorKind
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from msgspec import UNSET

DOMAIN = "backend.local"
PROBLEM_TYPE_PREFIX = "urn:backend:problem:"


# Where a violation is: a JSON pointer into the body (RFC 6901), a parameter of the query, a header.
Place = Literal["pointer", "parameter", "header"]


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One thing that breaks the contract: the pointer, parameter or header, and what is wrong with it."""

    where: str
    detail: str
    place: Place = "pointer"


@dataclass(slots=True, eq=False)
class ServiceError(Exception):
    """An error with a stable reason, safe to show to a client."""

    reason: str
    detail: str = ""
    violations: tuple[FieldViolation, ...] = ()
    # Seconds after which a retry makes sense.
    retry_after: float | None = None
    # Machine-readable facts; strings only, they travel in ErrorInfo.metadata.
    facts: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail or self.kind.title}"

    @property
    def kind(self) -> ErrorKind:
        """This reason's row of the error table."""
        return ERRORS[self.reason]

    def to_problem(self, request_id: str) -> Problem:
        """RFC 9457 members; `errors` lists the violations, each by where it is, and `facts` are for machines."""
        kind = self.kind
        return Problem(
            type=PROBLEM_TYPE_PREFIX + kind.slug,
            title=kind.title,
            status=kind.http_status,
            request_id=request_id,
            detail=self.detail or UNSET,
            errors=[FieldError(**{v.place: v.where}, detail=v.detail) for v in self.violations] or UNSET,
            facts=self.facts or UNSET,
        )

    def to_status(self) -> Status:
        """A google.rpc.Status with ErrorInfo and, where they apply, BadRequest and RetryInfo."""
        kind = self.kind
        status = Status(code=kind.grpc_code, message=self.detail or kind.title)
        details = [ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.facts)]
        if self.violations:
            details.append(
                BadRequest(
                    field_violations=[
                        BadRequest.FieldViolation(field=v.where, description=v.detail) for v in self.violations
                    ]
                )
            )
        if self.retry_after is not None:
            delay = Duration()
            delay.FromMilliseconds(round(self.retry_after * 1000))
            details.append(RetryInfo(retry_delay=delay))
        for detail in details:
            status.details.append(_packed(detail))
        return status

    @classmethod
    def from_status(cls, status: Status) -> ServiceError:
        """The error behind a status; without an ErrorInfo of ours, the code alone decides."""
        reason, retry_after = "", None
        facts: dict[str, str] = {}
        violations: tuple[FieldViolation, ...] = ()
        for detail in status.details:
            if detail.Is(ErrorInfo.DESCRIPTOR):
                info = ErrorInfo()
                detail.Unpack(info)
                if info.domain == DOMAIN and info.reason in ERRORS:
                    reason, facts = info.reason, dict(info.metadata)
            elif detail.Is(BadRequest.DESCRIPTOR):
                bad = BadRequest()
                detail.Unpack(bad)
                violations = tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)
            elif detail.Is(RetryInfo.DESCRIPTOR):
                retry = RetryInfo()
                detail.Unpack(retry)
                retry_after = retry.retry_delay.ToMilliseconds() / 1000
        if not reason:
            return cls(_REASON_BY_CODE.get(status.code, "INTERNAL"))
        title = ERRORS[reason].title
        return cls(reason, "" if status.message == title else status.message, violations, retry_after, facts)


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def as_service_error(error: BaseException) -> ServiceError | None:
    """`error` as a ServiceError when it is one or is a domain error of the table, else None (unexpected)."""
    if isinstance(error, ServiceError):
        return error
    reason = getattr(error, "reason", None)
    if isinstance(reason, str) and reason in ERRORS:
        violations = tuple(FieldViolation(*violation) for violation in getattr(error, "violations", ()))
        return ServiceError(reason, str(error), violations, facts=getattr(error, "facts", {}))
    return None


# What a status without details of ours means: these come from Envoy and from the transport itself.
_REASON_BY_CODE: dict[int, str] = {
    grpc.StatusCode.UNAVAILABLE.value[0]: "UNAVAILABLE",
    grpc.StatusCode.DEADLINE_EXCEEDED.value[0]: "DEADLINE_EXCEEDED",
    grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]: "OVERLOADED",
    grpc.StatusCode.CANCELLED.value[0]: "UNAVAILABLE",
}
