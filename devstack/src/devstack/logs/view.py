"""How an event looks: one readable line on a terminal, one JSON object for a program.

Nothing of a log reaches a terminal as it is: escape sequences, control characters and characters that change the
direction of text are shown as escapes, for a client can put them into a path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo

from mesh.topology import BROKER, MAILBOX, TABLE, VALKEY_SERVERS

from devstack.logs.events import SERVER_FAULTS, Event, Level

_RESET = "\x1b[0m"
_DIM, _RED, _YELLOW, _GREEN, _CYAN, _BOLD_RED = "2", "31", "33", "32", "36", "1;31"
_PROCESS_COLOURS = ("36", "35", "34", "32", "33", "96", "95", "94")
_PROCESSES = (*(row.name for row in TABLE), "postgres", *VALKEY_SERVERS, BROKER, MAILBOX, "supervisor")
_LEVEL_COLOURS = {
    Level.DEBUG: _DIM,
    Level.INFO: "",
    Level.WARNING: _YELLOW,
    Level.ERROR: _RED,
    Level.CRITICAL: _BOLD_RED,
}
# The same in every line of a process, or shown elsewhere in the line.
_HIDDEN = frozenset({
    "service", "environment", "version", "instance_id", "request_id", "trace_id", "span_id", "exception", "stack",
    "pid",
})  # fmt: skip
_GRPC_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_INDENT = " " * 13


def printable(text: str) -> str:
    """The text with everything escaped that a terminal would act on or that cannot be seen."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_json(event: Event) -> str:
    """One JSON object, ASCII only: what the line said, and what every event has."""
    standard = {
        "time": event.time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": event.level.name.lower(),
        "process": event.process,
        "service": event.service,
        "event": event.text,
    }
    return json.dumps(standard | {k: v for k, v in event.fields.items() if k not in standard}, ensure_ascii=True)


def progress(line: str) -> str:
    """A line of the supervisor's log as a starting stack shows it; what is no event as it is, but harmless."""
    try:
        process, _, what = json.loads(line)["event"].partition(": ")
    except (ValueError, TypeError, LookupError, AttributeError):
        return f"  {printable(line.rstrip())}"
    return f"  {printable(process):<12} {printable(what)}"


class Lines:
    """Events as lines for a person."""

    def __init__(self, *, colour: bool, zone: tzinfo | None = None, ids: bool = False) -> None:
        """Args: `zone` of the times shown, the machine's when None; `ids` of trace and span are shown as well."""
        self._colour = colour
        self._ids = ids
        self._zone = zone

    def line(self, event: Event, now: datetime) -> str:
        """One line; a stack trace follows it indented. An event of another day than `now` has its date."""
        if event.continues:
            return f"{_INDENT}{printable(event.text)}"
        moment = event.time.astimezone(self._zone)
        clock = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"
        if moment.date() != now.astimezone(self._zone).date():
            clock = f"{moment:%Y-%m-%d} {clock}"
        head = (
            f"{self._paint(clock, _DIM)} {self._paint(f'{printable(event.process):<12}', _process_colour(event))} "
            f"{self._paint(f'{event.level.name.lower():<8}', _LEVEL_COLOURS[event.level])} "
        )
        body = self._request(event) if event.is_request else self._other(event)
        if self._ids:
            known = ((name, event.fields.get(name)) for name in ("trace_id", "span_id"))
            body = " ".join([body, *(self._paint(f"{name}={_text(value)}", _DIM) for name, value in known if value)])
        rows = [*event.text.splitlines()[1:], *_trace(event.fields)]
        return "\n".join([head + body, *(f"{_INDENT}{printable(row)}" for row in rows)])

    def _request(self, event: Event) -> str:
        fields = event.fields
        method, path = _text(fields["method"]), _text(fields["path"])
        outcome, colour = _outcome(fields)
        parts = [
            f"{method:<6} {path:<40}",
            self._paint(f"{outcome:>3}", colour),
            f"{_text(fields.get('duration_ms')):>5} ms",
            self._paint(printable(event.request_id) or "-", _DIM),
        ]
        if why := _why(fields):
            parts.append(self._paint(why, _YELLOW))
        return " ".join(parts)

    def _other(self, event: Event) -> str:
        first = event.text.splitlines()[0] if event.text else ""
        parts = [self._paint(printable(first), _LEVEL_COLOURS[event.level])]
        parts += [f"{self._paint(f'{key}=', _DIM)}{value}" for key, value in _told(event.fields)]
        if event.request_id:
            parts.append(self._paint(printable(event.request_id), _DIM))
        return " ".join(parts)

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}{_RESET}" if self._colour and code else text


def outcome(event: Event) -> str:
    """How a request ended: its gRPC code by its name, or its HTTP status; of any other event an empty string."""
    return _outcome(event.fields)[0] if event.is_request else ""


def detail(event: Event) -> str:
    """What else an event says, beside its text and its ids: of a request how long it took, and what Envoy did to it."""
    if event.is_request:
        return f"{_text(event.fields.get('duration_ms'))} ms {_why(event.fields)}".rstrip()
    return " ".join(f"{key}={value}" for key, value in _told(event.fields))


def _why(fields: Mapping[str, object]) -> str:
    """Why Envoy itself answered or gave up; its flags are explained in its documentation of access logs."""
    flags = fields.get("flags")
    return "" if flags in (None, "", "-") else f"{_text(flags)} {_text(fields.get('details'))}".rstrip()


def _told(fields: Mapping[str, object]) -> list[tuple[str, str]]:
    return [
        (printable(str(key)), _text(value)) for key, value in fields.items() if key not in _HIDDEN and value is not None
    ]


def _outcome(fields: Mapping[str, object]) -> tuple[str, str]:
    """The gRPC code by its name, or the HTTP status, and its colour."""
    grpc_status, status = fields.get("grpc_status"), fields.get("status")
    if isinstance(grpc_status, int) and 0 <= grpc_status < len(_GRPC_CODES):
        fault = grpc_status in SERVER_FAULTS
        return _GRPC_CODES[grpc_status], _GREEN if grpc_status == 0 else _RED if fault else _YELLOW
    if not isinstance(status, int) or status == 0:
        return "-", _YELLOW
    return str(status), _RED if status >= 500 else _YELLOW if status >= 400 else _CYAN if status >= 300 else _GREEN


def _process_colour(event: Event) -> str:
    known = event.service in _PROCESSES
    return _PROCESS_COLOURS[_PROCESSES.index(event.service) % len(_PROCESS_COLOURS)] if known else ""


def _text(value: object) -> str:
    if value is None:
        return "-"
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _trace(fields: Mapping[str, object]) -> list[str]:
    return [
        row.expandtabs(4)
        for name in ("exception", "stack")
        if isinstance(text := fields.get(name), str)
        for row in text.splitlines()
    ]
