"""Structured logging: one JSON object a line on stdout, with the fields every line must have.

A secret never reaches a line because it is a type that cannot be printed (`pydantic.SecretStr`); bodies, headers
and query strings are never logged at all.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from datetime import UTC, datetime
from typing import BinaryIO, cast

import msgspec
import structlog
from structlog.typing import EventDict

from chassis import context
from chassis.lines import Lines
from chassis.metrics.families import Reading
from chassis.tracing import spans

# Of the process: what its logger class is a subclass of changes with the level, so that a line below the level costs as
# little as a call of nothing, and so that loggers which modules have made already change as well.
_Logger = type("_Logger", (structlog.make_filtering_bound_logger("info"),), {})

_LOST = Reading("backend_log_lines_lost_total", "Lines of the log that could not be written")

_encode = msgspec.json.Encoder(enc_hook=str).encode


def configure(service: str, *, environment: str, version: str, level: str = "info") -> None:
    """Send structlog and the standard library's logging to stdout as JSON lines, which are lost when there is no room.

    Args:
        service: the name under which this process appears in every line.
        environment: where it runs (development, production, …).
        version: the version of the service's distribution.
        level: the lowest level that is written.
    """
    fixed = {
        "service": service,
        "environment": environment,
        "version": version,
        "instance_id": f"{socket.gethostname()}-{os.getpid()}",
    }

    def add_standard_fields(_logger: object, method: str, event: EventDict) -> EventDict:
        event["level"] = method
        event["time"] = datetime.now(UTC)
        event.update(fixed)
        request = context.current()
        if request is not None:
            event["request_id"] = request.request_id
            # 00-<trace_id>-<span_id>-<flags>, W3C Trace Context section 3.2
            # Of the smallest unit of work that is recorded, or else what the caller said.
            span = spans.innermost()
            traceparent = request.traceparent if span is None else span.traceparent()
            if len(traceparent) == 55:
                event["trace_id"] = traceparent[3:35]
                event["span_id"] = traceparent[36:52]
        return event

    lines = Lines(sys.stdout.buffer)
    _LOST.read(lambda: lines.lost_in_all)
    structlog.configure(
        processors=[
            add_standard_fields,
            structlog.processors.format_exc_info,
            lambda _logger, _method, event: _encode(event),
        ],
        wrapper_class=_Logger,
        logger_factory=structlog.BytesLoggerFactory(file=cast("BinaryIO", lines)),
        cache_logger_on_first_use=True,
    )
    change_level(level)
    root = logging.getLogger()
    root.handlers[:] = [_StandardLibraryBridge()]
    root.setLevel(logging.WARNING)


LEVELS = ("debug", "info", "warning", "error")


# Whether lines of the lowest level are written; for where they are so many that even to format them is too much.
debugging = False


def change_level(level: str) -> None:
    """From now on the lowest that is written; one of LEVELS."""
    global debugging  # noqa: PLW0603 - of the process, like the level
    _Logger.__bases__ = (structlog.make_filtering_bound_logger(level),)
    debugging = level == "debug"


def current_level() -> str:
    """The lowest level that is written."""
    return next(level for level in LEVELS if structlog.make_filtering_bound_logger(level) in _Logger.__bases__)


class _StandardLibraryBridge(logging.Handler):
    """Libraries log through the standard library; their lines get the same shape."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info
        )
