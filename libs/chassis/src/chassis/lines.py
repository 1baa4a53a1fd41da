"""Lines of a log on a stream that may have no room for them: what logs goes on, whatever becomes of its lines."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from io import RawIOBase
from typing import IO


class Lines:
    """Writes whole lines to where a stream goes, past its buffer: that would keep what failed, and fail again.

    A line that cannot be written (the disk is full, nobody reads the pipe any more) is lost, for a process that serves is
    worth more than what it says about it. Raising instead would end requests, and inside the event loop the loop
    itself. How many were lost is said in front of the next line that is written.

    Args:
        stream: its descriptor is what is written to; the stream itself should not be used beside it.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._raw: IO[bytes] | RawIOBase = getattr(stream, "raw", stream)
        # Since the last line that was written, and since the beginning.
        self._lost = 0
        self.lost_in_all = 0
        self._torn = False
        self._lock = threading.Lock()

    def write(self, line: bytes) -> int:
        """Write one line, its end included, or lose it."""
        with self._lock:
            if self._lost and self._put(self._about_lost()):
                self._lost = 0
            if self._lost or not self._put(line):
                self._lost += 1
                self.lost_in_all += 1
        return len(line)

    def flush(self) -> None:
        """Nothing is kept back."""

    def _put(self, line: bytes) -> bool:
        # What is left of a line that was cut off must not take the next one with it.
        rest = b"\n" + line if self._torn else line
        try:
            while rest:
                written = self._raw.write(rest)
                if not written:
                    return False
                rest = rest[written:]
                self._torn = bool(rest)
        except OSError:
            return False
        return True

    def _about_lost(self) -> bytes:
        said: dict[str, str | int] = {
            "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "level": "warning",
            "event": "lines of this log could not be written",
            "lost": self._lost,
        }
        return json.dumps(said).encode() + b"\n"
