"""Which events a reader wants to see."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from devstack.logs.events import Event, Level

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
# What the platform asks itself, all the time.
JWKS = "/.well-known/jwks.json"
# Envoy says so twice at every start; its HTTP/2 codec is our choice (ADR 0011).
_CHOSEN_CODEC = "use_oghttp2_codec' is marked as work-in-progress"
_ROUTINE_PREFIXES = (
    "/healthz/",
    "/grpc.health.v1.Health/",
    "/envoy.service.ratelimit.v3.RateLimitService/",
    "/opentelemetry.proto.collector.logs.v1.LogsService/",
)


@dataclass(frozen=True, slots=True)
class Selection:
    """What is shown.

    Attributes:
        names: processes or services (all replicas of one); empty for all.
        level: the least one.
        since: the earliest time.
        request_id: a request's id, or its beginning.
        routine: whether health checks, fetches of the signing keys and the limiter's own calls are shown that went well,
            and what Envoy says of the codec that we have chosen.
    """

    names: frozenset[str] = frozenset()
    level: Level = Level.DEBUG
    since: datetime | None = None
    request_id: str = ""
    routine: bool = False

    def reads(self, process: str) -> bool:
        """Whether anything of this process's log may be shown."""
        return not self.names or process in self.names or process.partition("-")[0] in self.names

    def shows(self, event: Event) -> bool:
        """Whether this event is shown."""
        return (
            event.level >= self.level
            and (self.since is None or event.time >= self.since)
            and (not self.request_id or event.request_id.startswith(self.request_id))
            and (self.routine or not is_routine(event))
        )


def is_routine(event: Event) -> bool:
    """Whether this is a request that the platform makes of itself, and that went well, or a warning about our choice."""
    if not event.is_request:
        return _CHOSEN_CODEC in event.text
    path = event.fields["path"]
    routine = isinstance(path, str) and (path == JWKS or path.startswith(_ROUTINE_PREFIXES))
    return routine and _went_well(event.fields)


def _went_well(fields: Mapping[str, object]) -> bool:
    status = fields.get("status")
    return isinstance(status, int) and 0 < status < 400 and fields.get("grpc_status") in (None, 0)


def parse_level(text: str) -> Level:
    """A level by its name.

    Raises:
        ValueError: there is none of that name; the message lists them.
    """
    try:
        return Level[text.upper()]
    except KeyError:
        names = ", ".join(level.name.lower() for level in Level)
        raise ValueError(f"there is no level {text!r}; there are: {names}") from None


def parse_duration(text: str) -> timedelta:
    """`90s`, `10m`, `2h` or `1d`.

    Raises:
        ValueError: it is none of these.
    """
    found = _duration(text)
    if not found:
        raise ValueError(f"{text!r} is no duration: write 90s, 10m, 2h or 1d")
    return found


def _duration(text: str) -> timedelta | None:
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    return timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None


def parse_since(text: str, now: datetime) -> datetime:
    """`90s`, `10m`, `2h`, `1d`, a time of today (`14:05`), or a date and time; local without a zone.

    Args:
        text: what somebody typed.
        now: the present, in the reader's time zone.

    Raises:
        ValueError: it is none of these.
    """
    try:
        if (ago := _duration(text)) is not None:
            return now - ago
        if re.fullmatch(r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?", text):
            return datetime.fromisoformat(f"{now:%Y-%m-%d}T{text}").astimezone(now.tzinfo)
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.astimezone(now.tzinfo)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time: write 10m, 2h, 14:05 or 2026-01-31T14:05:00") from None
