"""What belongs to the request being served: its id, its deadline, its caller."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token

import msgspec

from chassis.identity import Caller
from chassis.presence import Presence
from chassis.tracing.spans import Span

REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
# Of version, trace and parent: what says that there is none (W3C Trace Context, section 3.2.2).
_NO_VERSION, _NO_TRACE, _NO_PARENT = "ff", "0" * 32, "0" * 16

METADATA_REQUEST_ID = "x-request-id"
METADATA_TOKEN = "authorization"
METADATA_ROLES = "x-caller-roles"
METADATA_TRACE = "traceparent"
METADATA_ADDRESS = "x-client-address"
# No address is longer: IPv6, with an IPv4 address in it and a zone.
_LONGEST_ADDRESS = 64


class RequestContext(msgspec.Struct, frozen=True):
    """Set once when a request arrives, readable everywhere below, cleared after.

    Another one is made of it with `msgspec.structs.replace`, for a part of the request that may take less time.
    """

    request_id: str
    # On the event loop's clock (`loop.time()`), seconds; None when nobody set one.
    deadline: float | None = None
    caller: Caller | None = None
    # The caller's access token, which every hop verifies for itself.
    token: str = ""
    # W3C Trace Context, as the caller sent it; what we send on names a span of ours, where there is one.
    traceparent: str = ""
    # The client's, as the edge saw it. Whom mutual TLS lets call is believed, as for the roles that are still held; empty
    # where no client stands behind.
    address: str = ""
    # Set where asking whether the caller still waits costs nothing: for a request without a body.
    presence: Presence | None = None
    # When a timer ends the whole request, on the event loop's clock: what has until then needs no timer of its own.
    timer: float | None = None

    def remaining(self) -> float | None:
        """Seconds left before the deadline (never negative), or None without one."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    def to_metadata(self, span: Span | None = None) -> list[tuple[str, str]]:
        """The gRPC metadata that carries this context to the next hop; the deadline travels as grpc-timeout.

        Args:
            span: of the call, where one is recorded.
        """
        metadata = [(METADATA_REQUEST_ID, self.request_id)]
        if traceparent := self.traceparent if span is None else span.traceparent():
            metadata.append((METADATA_TRACE, traceparent))
        if self.address:
            metadata.append((METADATA_ADDRESS, self.address))
        if self.caller is not None:
            metadata += [
                (METADATA_TOKEN, f"Bearer {self.token}"),
                # What the caller's roles are now. They can only take away from those in the token.
                (METADATA_ROLES, ",".join(self.caller.roles)),
            ]
        return metadata

    @classmethod
    def from_metadata(cls, get: Callable[[str], str | None], deadline: float | None) -> RequestContext:
        """Read back what `to_metadata` wrote, but for the caller, who is not known before the token is verified.

        A missing or ill-formed request id is replaced.

        Args:
            get: the value of a key of the metadata.
            deadline: of the call, which a timer ends then; on the event loop's clock.
        """
        scheme, _, token = (get(METADATA_TOKEN) or "").partition(" ")
        return cls(
            request_id=accept_request_id(get(METADATA_REQUEST_ID)),
            deadline=deadline,
            token=token if scheme == "Bearer" else "",
            traceparent=accept_traceparent(get(METADATA_TRACE)),
            address=(get(METADATA_ADDRESS) or "")[:_LONGEST_ADDRESS],
            timer=deadline,
        )


def accept_request_id(offered: str | None) -> str:
    """`offered` when it is well-formed, else a fresh id."""
    return offered if offered and REQUEST_ID.fullmatch(offered) else secrets.token_hex(16)


def accept_traceparent(offered: str | None) -> str:
    """`offered` when it is well-formed (W3C Trace Context, section 3.2.2), else nothing."""
    if not offered or _TRACEPARENT.fullmatch(offered) is None:
        return ""
    is_none = offered[:2] == _NO_VERSION or offered[3:35] == _NO_TRACE or offered[36:52] == _NO_PARENT
    return "" if is_none else offered


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


def authenticated(by: Caller, token: str) -> None:
    """Note who calls, for the rest of the request being served."""
    context = _current.get()
    if context is not None:
        _current.set(msgspec.structs.replace(context, caller=by, token=token))


def enter(context: RequestContext) -> Token[RequestContext | None]:
    """Make `context` current, until `leave` is given the result; `serving` is both in one."""
    return _current.set(context)


def leave(token: Token[RequestContext | None]) -> None:
    """Back to what was current before."""
    _current.reset(token)


@contextmanager
def serving(context: RequestContext) -> Iterator[RequestContext]:
    """Make `context` current for the duration of the block."""
    token = enter(context)
    try:
        yield context
    finally:
        leave(token)
