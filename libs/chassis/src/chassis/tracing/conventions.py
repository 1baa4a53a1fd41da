"""What spans and their attributes are called: OpenTelemetry's semantic conventions, by their current names.

A test compares every name with the published registry (`opentelemetry-semantic-conventions`). What has no name there
begins with `backend.`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import grpc
from contracts.errors import ERRORS

from chassis.tracing.spans import CLIENT, CONSUMER, INTERNAL, PRODUCER, SERVER, Description, Span, Value

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_VERB = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)
# gRPC codes that are the server's fault (semantic conventions, "gRPC status").
_SERVER_FAULTS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
_CODES = {reason: _CODE_NAMES[kind.grpc_code] for reason, kind in ERRORS.items()} | {
    "OK": "OK",
    "CANCELLED": "CANCELLED",
}
_STATUSES = {reason: kind.http_status for reason, kind in ERRORS.items()}


def http_server(method: str, route: str) -> Description:
    """An operation of the public API."""
    return Description(
        f"{method} {route}" if route else method or "HTTP",
        SERVER,
        {"http.request.method": method or "_OTHER", **({"http.route": route} if route else {}), "url.scheme": "https"},
        "http",
    )


def rpc_server(method: str) -> Description:
    """An RPC that is served; its method as `package.Service/Method`."""
    return Description(method, SERVER, {"rpc.system.name": "grpc", "rpc.method": method}, "rpc")


def rpc_client(method: str, peer: str) -> Description:
    """A call of another service."""
    attributes = {"rpc.system.name": "grpc", "rpc.method": method, **({"server.address": peer} if peer else {})}
    return Description(method, CLIENT, attributes, "call")


def sql(summary: str, text: str, database: str) -> Description:
    """A statement: its name, its text (with places for its values, which are not said) and its database."""
    attributes = {"db.system.name": "postgresql", "db.namespace": database, "db.query.text": text}
    if (verb := _VERB.match(text)) is not None:
        attributes["db.operation.name"] = verb[1].upper()
    return Description(summary, CLIENT, attributes | {"db.query.summary": summary})


def pool(use: str, database: str) -> Description:
    """A connection in use, or a transaction: the wait for one, and all that is done with it."""
    return Description(use, INTERNAL, {"db.system.name": "postgresql", "db.namespace": database})


def valkey(command: str) -> Description:
    """A command; its keys have ids of people in them, and are not said."""
    return Description(command, CLIENT, {"db.system.name": "redis", "db.operation.name": command})


def publish(subject: str) -> Description:
    """An event is given to the broker, until it has said that it is stored."""
    return _messaging("publish", "send", PRODUCER, subject)


def process(subject: str, consumer: str) -> Description:
    """An event is acted on by a consumer: one attempt."""
    return _messaging("process", "process", CONSUMER, subject, {"messaging.consumer.group.name": consumer})


def mail(kind: str) -> Description:
    """A mail is given to a server, until it has said that it has it: one attempt. To whom it goes is not said."""
    return Description(f"send mail {kind}", PRODUCER, {"network.protocol.name": "smtp", "backend.mail.kind": kind})


def _messaging(
    operation: str, kind: str, span_kind: int, subject: str, more: Mapping[str, Value] | None = None
) -> Description:
    attributes: dict[str, Value] = {
        "messaging.system": "nats",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": subject,
    }
    return Description(f"{operation} {subject}", span_kind, attributes | dict(more or {}))


def is_server_fault(outcome: str) -> bool:
    """Whether a request that ended so was answered as a failure of ours (5xx)."""
    return _STATUSES.get(outcome, 0) >= 500


def is_error(span: Span) -> bool:
    """Whether a span's status is "error": what the other side has done wrong is none of a server's."""
    outcome, rules = span.outcome, span.description.rules
    if outcome == "OK":
        return False
    if rules == "http":
        return is_server_fault(outcome)
    if rules == "rpc":
        return _CODES.get(outcome, "UNKNOWN") in _SERVER_FAULTS
    return outcome != "CANCELLED"


def of_success(description: Description) -> Iterator[tuple[str, Value]]:
    """The attributes that say that it went well, where they are the same for all: not for an HTTP request."""
    if description.rules in ("rpc", "call"):
        yield "rpc.response.status_code", "OK"


def of_outcome(span: Span) -> Iterator[tuple[str, Value]]:
    """The attributes that say how it ended, and what is known of this one span."""
    outcome, rules, trace = span.outcome, span.description.rules, span.trace
    if rules == "http":
        if trace.path:
            yield "url.path", _without_names(trace.path, str(span.description.attributes.get("http.route", "")))
        if status := _STATUSES.get(outcome, 0) or trace.status:
            yield "http.response.status_code", status
    elif rules in ("rpc", "call"):
        yield "rpc.response.status_code", _CODES.get(outcome, "UNKNOWN")
    if outcome != "OK":
        yield ("error.type" if is_error(span) else "backend.outcome"), outcome
    if span.sqlstate:
        yield "db.response.status_code", span.sqlstate


def _without_names(path: str, route: str) -> str:
    """A path as its route says it, with the ids: where an id belongs, a client may have written anything."""
    parts = zip(path.split("/"), route.split("/"), strict=False)
    return "/".join(part if part == known or _UUID.fullmatch(part) else "REDACTED" for part, known in parts)
