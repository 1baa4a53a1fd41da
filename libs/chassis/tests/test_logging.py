"""A log line's fields, and that none has a secret."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO, cast

from chassis.lines import Lines


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


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    """Not the request that logs, nor the event loop, whose own handler of errors logs as well."""
    script = """
import asyncio, structlog, sys, uvloop
from chassis.logging import configure
configure("svc", environment="test", version="1")

def broken():
    raise RuntimeError("in a callback of the loop")

async def main():
    loop = asyncio.get_running_loop()
    for _ in range(2):
        loop.call_soon(broken)
        structlog.get_logger().info("a line " * 5000)
        await asyncio.sleep(0)

uvloop.run(main())
sys.exit(42)
"""
    with Path("/dev/full").open("wb") as full:
        assert subprocess.run([sys.executable, "-c", script], stdout=full, check=False).returncode == 42


class _Disk:
    """Has room for some bytes."""

    def __init__(self, room: int) -> None:
        self.room, self.written = room, b""

    def write(self, data: bytes) -> int:
        fits = data[: self.room]
        if not fits:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(fits)
        self.written += fits
        return len(fits)


def test_a_line_that_found_no_room_is_counted_and_takes_no_other_with_it() -> None:
    disk = _Disk(room=20)
    lines = Lines(cast("BinaryIO", disk))
    for number in range(4):
        lines.write(b"{the line %d}\n" % number)
    assert disk.written == b"{the line 0}\n{the li"
    disk.room = 1000
    lines.write(b"{the line 4}\n")
    lines.write(b"{the line 5}\n")
    first, cut, about, *rest = disk.written.splitlines()
    assert (first, cut, rest) == (b"{the line 0}", b"{the li", [b"{the line 4}", b"{the line 5}"])
    assert json.loads(about)["lost"] == 3
    disk.room = 0
    lines.write(b"{the line 6}\n")
    assert lines.lost_in_all == 4


def test_a_reader_who_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        Lines(cast("BinaryIO", pipe)).write(b"a line\n")
