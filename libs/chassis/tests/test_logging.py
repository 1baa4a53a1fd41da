"""A log line's fields, and that none has a secret."""

from __future__ import annotations

import json
import subprocess
import sys


def test_a_log_line_has_the_standard_fields_the_request_and_no_secret() -> None:
    script = """
import structlog
from pydantic import SecretStr
from chassis.logging import configure
from chassis.context import RequestContext, serving
configure("svc", environment="test", version="1")
with serving(RequestContext("request-1", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")):
    structlog.get_logger().info("hello", password=SecretStr("hunter2"))
    try:
        raise ValueError("boom")
    except ValueError:
        structlog.get_logger().exception("failed")
import logging
logging.getLogger("library").error("from a library")
structlog.get_logger().debug("below the level")
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    first, second, third = (json.loads(line) for line in output.splitlines())
    assert first.keys() == {
        "event", "level", "time", "service", "environment", "version", "instance_id", "request_id", "trace_id",
        "span_id", "password",
    }  # fmt: skip
    assert (first["request_id"], first["trace_id"], first["span_id"]) == ("request-1", "a" * 32, "b" * 16)
    assert b"hunter2" not in output
    assert "ValueError: boom" in second["exception"]
    assert (third["event"], third["level"], "request_id" in third) == ("from a library", "error", False)
