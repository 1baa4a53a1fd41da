"""Acts as lines of the log: `event` is "audit", and the other members are those of an act.

They are written whatever the log's level is.
"""

from __future__ import annotations

from datetime import UTC

import msgspec
import structlog

from chassis.audit.acts import Act

# Without the level's filter of `chassis.logging`.
_log = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger("info"))
EVENT = "audit"


def members(act: Act) -> dict[str, object]:
    """What the line of an act says besides its event, its time, and what every line says."""
    return {
        "audit_id": str(act.id),
        "action": act.action,
        "actor": act.actor,
        "subject": act.subject,
        "request_id": act.request_id,
        "address": act.address,
        "before": act.before,
        "after": act.after,
    }


def tell(act: Act) -> None:
    """Write the line of an act that has been done."""
    _log.info(EVENT, **members(act))


def as_json(act: Act, service: str) -> str:
    """The same line, without its end, for a command that is no service and has no log of its own."""
    line = {
        "event": EVENT,
        "level": "info",
        "time": act.time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "service": service,
        **members(act),
    }
    return msgspec.json.encode(line).decode()
