"""One event of a log, whoever wrote it: our JSON lines, Envoy's, PostgreSQL's, Valkey's and NATS's own text.

A log is input from outside: a client chooses paths, and a crash may write anything. Parsing never fails; what is in
no known form is an event whose text is the line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum


class Level(IntEnum):
    """How serious; the order is the meaning."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    CRITICAL = 50


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        time: when it began, with a time zone; a line without a time has that of the line before it.
        process: whose log it is in: order, order-2, postgres, supervisor.
        level: of a request by its outcome, for its line cannot say so.
        text: what happened.
        fields: everything else that the line says, raw.
        continues: whether it is the next line of the event before it.
    """

    time: datetime
    process: str
    level: Level
    text: str
    fields: Mapping[str, object] = field(default_factory=dict)
    continues: bool = False

    @property
    def service(self) -> str:
        """The process without the number of its replica."""
        return self.process.partition("-")[0]

    @property
    def request_id(self) -> str:
        """The request that it belongs to, or an empty string."""
        found = self.fields.get("request_id")
        return found if isinstance(found, str) else ""

    @property
    def is_request(self) -> bool:
        """Whether it is a line of an access log."""
        return self.text == "request" and "method" in self.fields and "path" in self.fields


_LEVELS = {
    "trace": Level.DEBUG,
    "debug": Level.DEBUG,
    "info": Level.INFO,
    "notice": Level.INFO,
    "warning": Level.WARNING,
    "warn": Level.WARNING,
    "error": Level.ERROR,
    "exception": Level.ERROR,
    "critical": Level.CRITICAL,
    # PostgreSQL's (documentation, table 19.2); LOG is what an administrator should know, not a fault.
    "log": Level.INFO,
    "fatal": Level.ERROR,
    "panic": Level.CRITICAL,
    # NATS's.
    "trc": Level.DEBUG,
    "dbg": Level.DEBUG,
    "inf": Level.INFO,
    "wrn": Level.WARNING,
    "err": Level.ERROR,
    "ftl": Level.CRITICAL,
    # Valkey's marks.
    ".": Level.DEBUG,
    "-": Level.INFO,
    "*": Level.INFO,
    "#": Level.WARNING,
}
# W3C Trace Context, section 3.2: the access lines of services have it whole.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
# gRPC codes that are the server's fault: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS.
SERVER_FAULTS = frozenset({2, 4, 13, 14, 15})
# "%m [%p] %q%u@%d LEVEL:  message", as log_line_prefix of devstack.postgres says.
_POSTGRES = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC \[(?P<pid>\d+)\] (?:(?P<user>[^@\s]*@\S*) )?"
    r"(?P<level>[A-Z]+)\d?:  (?P<text>.*)"
)
# "pid:role time mark message", with `log-timestamp-format iso8601`; until it has read that it writes its default.
_VALKEY = re.compile(
    r"(?P<pid>\d+):[MSCX] (?P<time>\d{4}-\d\d-\d\dT\S+|\d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d\.\d{3}) "
    r"(?P<level>[.*#-]) (?P<text>.*)"
)
# "[pid] time [LEVEL] message", with `logtime_utc`.
_NATS = re.compile(
    r"\[(?P<pid>\d+)\] (?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6}) \[(?P<level>[A-Z]{3})\] (?P<text>.*)"
)
_VALKEY_DEFAULT_TIME = "%d %b %Y %H:%M:%S.%f"
_TEXT_FORMS = {"postgres": _POSTGRES, "valkey": _VALKEY, "valkey-cache": _VALKEY, "nats": _NATS}
# What PostgreSQL adds to the message before, as lines of their own.
_ADDITIONS = frozenset({"DETAIL", "HINT", "CONTEXT", "STATEMENT", "QUERY", "LOCATION"})


class Parser:
    """Reads the lines of one process's log, in their order."""

    def __init__(self, process: str, began: datetime) -> None:
        """Args: `began` is the time of lines before the first that has one."""
        self._process = process
        self._form = _TEXT_FORMS.get(process.partition("-")[0])
        self._time = began
        self._level = Level.INFO

    def parse(self, line: str) -> Event | None:
        """The event of one line without its end; None for an empty one."""
        if not line.strip():
            return None
        event = self._json(line) if line.startswith("{") else None
        if event is None and self._form is not None and (found := self._form.fullmatch(line)):
            event = self._known_text(found)
        if event is None:
            return self._other_text(line)
        self._time, self._level = event.time, event.level
        return event

    def _json(self, line: str) -> Event | None:
        try:
            fields = json.loads(line)
        # RecursionError: a line of nothing but brackets.
        except (ValueError, RecursionError):
            return None
        text = fields.pop("event", "")
        name = fields.pop("level", "info")
        level = _LEVELS.get(name.lower(), Level.INFO) if isinstance(name, str) else Level.INFO
        if found := _TRACEPARENT.fullmatch(str(fields.pop("traceparent", ""))):
            fields["trace_id"], fields["span_id"] = found.groups()
        event = Event(
            time=_moment(fields.pop("time", None)) or self._time,
            process=self._process,
            level=level,
            text=text if isinstance(text, str) else json.dumps(text),
            fields=fields,
        )
        if event.is_request and _failed(fields):
            return Event(event.time, event.process, max(level, Level.ERROR), event.text, fields)
        return event

    def _known_text(self, found: re.Match[str]) -> Event | None:
        parts = found.groupdict()
        # NATS writes a date with slashes.
        written = parts.pop("time").replace("/", "-")
        moment = _moment(written) or _local_moment(written)
        if moment is None:
            return None
        name, text = parts.pop("level"), parts.pop("text")
        if name in _ADDITIONS:
            level, text = self._level, f"{name.lower()}: {text}"
        else:
            level = _LEVELS.get(name.lower(), Level.INFO)
        fields = {key: value for key, value in parts.items() if value is not None}
        return Event(moment, self._process, level, text, fields)

    def _other_text(self, line: str) -> Event:
        """A further line of PostgreSQL's message begins with a tab; a service that writes text is in trouble."""
        if self._form is not None and line.startswith("\t"):
            return Event(self._time, self._process, self._level, line.strip(), continues=True)
        return Event(self._time, self._process, Level.INFO if self._form else Level.WARNING, line)


def _failed(fields: Mapping[str, object]) -> bool:
    status, grpc_status = fields.get("status"), fields.get("grpc_status")
    return (isinstance(status, int) and status >= 500) or (
        isinstance(grpc_status, int) and grpc_status in SERVER_FAULTS
    )


def _moment(text: object) -> datetime | None:
    """RFC 3339; UTC when no zone is given."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _local_moment(text: str) -> datetime | None:
    """Valkey's default form, which has no zone."""
    try:
        return datetime.strptime(text, _VALKEY_DEFAULT_TIME).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
