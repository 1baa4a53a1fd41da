"""What belongs to the request being served: its id, its deadline, its caller."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from chassis.identity import Caller

REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")

METADATA_REQUEST_ID = "x-request-id"
METADATA_CALLER = "x-caller-id"
METADATA_SESSION = "x-caller-session"
METADATA_ROLES = "x-caller-roles"
METADATA_TRACE = "traceparent"


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Set once when a request arrives, readable everywhere below, cleared after."""

    request_id: str
    # On the event loop's clock (`loop.time()`), seconds; None when nobody set one.
    deadline: float | None = None
    caller: Caller | None = None
    # W3C Trace Context; passed on unchanged until telemetry makes spans of its own.
    traceparent: str = ""

    def remaining(self) -> float | None:
        """Seconds left before the deadline (never negative), or None without one."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    def to_metadata(self) -> list[tuple[str, str]]:
        """The gRPC metadata that carries this context to the next hop; the deadline travels as grpc-timeout."""
        metadata = [(METADATA_REQUEST_ID, self.request_id)]
        if self.traceparent:
            metadata.append((METADATA_TRACE, self.traceparent))
        if self.caller is not None:
            metadata += [
                (METADATA_CALLER, self.caller.user_id),
                (METADATA_SESSION, self.caller.session_id),
                (METADATA_ROLES, ",".join(self.caller.roles)),
            ]
        return metadata

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], deadline: float | None) -> RequestContext:
        """Read back what `to_metadata` wrote; a missing or ill-formed request id is replaced."""
        caller_id = metadata.get(METADATA_CALLER, "")
        roles = metadata.get(METADATA_ROLES, "")
        return cls(
            request_id=accept_request_id(metadata.get(METADATA_REQUEST_ID)),
            deadline=deadline,
            caller=Caller(caller_id, metadata.get(METADATA_SESSION, ""), tuple(roles.split(",")) if roles else ())
            if caller_id
            else None,
            traceparent=metadata.get(METADATA_TRACE, ""),
        )


def accept_request_id(offered: str | None) -> str:
    """`offered` when it is well-formed, else a fresh id."""
    return offered if offered and REQUEST_ID.fullmatch(offered) else secrets.token_hex(16)


_current: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def current() -> RequestContext | None:
    """The context of the request being served, or None outside of one."""
    return _current.get()


def caller() -> Caller:
    """The authenticated caller.

    Raises:
        LookupError: outside of a request, or in an anonymous one. The contract's access rule excludes both, so
            this is a programming error and answers as INTERNAL.
    """
    context = _current.get()
    if context is None or context.caller is None:
        raise LookupError("this operation has no authenticated caller; its contract must name a permission")
    return context.caller


@contextmanager
def serving(context: RequestContext) -> Iterator[RequestContext]:
    """Make `context` current for the duration of the block."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
