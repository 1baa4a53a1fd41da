"""Sends what is kept to an OTLP receiver, from a thread of its own, in batches, over one connection.

The receiver may be slow, dead or refuse: then spans are dropped and counted, and no request notices. What waits is bounded
by its number of spans.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

import structlog

from chassis.tracing import otlp
from chassis.tracing.spans import Trace

MOST_WAITING = 8192
_BATCH_SPANS = 512
# How long a span waits for others; `backend trace` waits as long.
_PAUSE_SECONDS = 0.5
_TIMEOUT_SECONDS = 2.0
# After a failure. What comes meanwhile waits, and is dropped when it is too much.
_RETRY_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class Exporter:
    """An OTLP exporter over HTTP with protobuf.

    Args:
        endpoint: the receiver's base URL (`OTEL_EXPORTER_OTLP_ENDPOINT`), below which it takes `/v1/traces`.
        resource: attributes of the process.
        compress: with gzip.
        most_waiting: spans.
    """

    def __init__(
        self, endpoint: str, resource: Mapping[str, str], *, compress: bool, most_waiting: int = MOST_WAITING
    ) -> None:
        parts = urlsplit(endpoint)
        self._address = parts.hostname or "127.0.0.1", parts.port or (443 if parts.scheme == "https" else 4318)
        self._is_https = parts.scheme == "https"
        self._path = parts.path.rstrip("/") + "/v1/traces"
        self._resource = resource
        self._compress = compress
        self._most_waiting = most_waiting
        self._waiting: deque[Trace] = deque()
        # Of spans. `taken` and `dropped` are counted under the lock, the others by the thread alone.
        self.taken = self.dropped = self._released = self.sent = self.failed = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_stopping = False
        self._connection: HTTPConnection | None = None
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send what waits, and end; gives up after some seconds."""
        self._is_stopping = True
        self._wake.set()
        self._thread.join(_TIMEOUT_SECONDS + 1)

    def take(self, trace: Trace) -> None:
        """Send a trace soon, or drop it because too much waits. Never blocks."""
        count = len(trace.spans)
        with self._lock:
            if self.taken - self._released + count > self._most_waiting:
                self.dropped += count
                trace.forget()
                return
            self.taken += count
            self._waiting.append(trace)
            is_much = self.taken - self._released >= _BATCH_SPANS
        if is_much:
            self._wake.set()

    def counts(self) -> dict[str, int]:
        """How many spans were sent, dropped here, and refused by the receiver or lost with it."""
        return {"sent": self.sent, "dropped": self.dropped, "failed": self.failed}

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.wait(_PAUSE_SECONDS)
            self._wake.clear()
            while self._waiting and self._send_batch():
                pass
            if self._waiting:
                # The last one failed.
                self._pause()
        if self._waiting:
            self._send_batch()
        self._disconnect()

    def _pause(self) -> None:
        give_up = time.monotonic() + _RETRY_SECONDS
        while not self._is_stopping and time.monotonic() < give_up:
            self._wake.wait(_PAUSE_SECONDS)
            self._wake.clear()

    def _send_batch(self) -> bool:
        """Whether the receiver has taken it."""
        batch: list[Trace] = []
        count = 0
        while self._waiting and count < _BATCH_SPANS:
            trace = self._waiting.popleft()
            batch.append(trace)
            count += len(trace.spans)
        try:
            body = otlp.request(batch, self._resource)
        except Exception:
            # A name or a value of a library's that cannot be told: it costs its batch, and not all that comes after.
            _log.exception("spans could not be encoded", lost=count)
            self.failed += count
            return True
        finally:
            for trace in batch:
                trace.forget()
            self._released += count
        status = self._status(body)
        if 200 <= status < 300:
            self.sent += count
            return True
        self._disconnect()
        self.failed += count
        return False

    def _status(self, body: bytes) -> int:
        """Of the receiver's answer; 0 when there is none."""
        # A receiver ends a connection that was idle for long, which shows only when it is used again.
        was_open = self._connection is not None
        try:
            return self._post(body)
        except (OSError, HTTPException):
            self._disconnect()
        if was_open:
            with suppress(OSError, HTTPException):
                return self._post(body)
        return 0

    def _post(self, body: bytes) -> int:
        headers = {"content-type": "application/x-protobuf"}
        if self._compress:
            body = gzip.compress(body, compresslevel=1)
            headers["content-encoding"] = "gzip"
        if self._connection is None:
            kind = HTTPSConnection if self._is_https else HTTPConnection
            self._connection = kind(*self._address, timeout=_TIMEOUT_SECONDS)
        self._connection.request("POST", self._path, body, headers)
        response = self._connection.getresponse()
        response.read()
        return response.status

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
