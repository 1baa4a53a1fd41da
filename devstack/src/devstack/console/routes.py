"""What each path of the console is: the page and its data, the documents that it links to, and where spans are sent to.

The page is read-only, and so is all that it asks for. Data are made once a round for however many look.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from devstack import mails
from devstack.console import documents, pages
from devstack.console.alerts import NAMED, Alerts
from devstack.console.callers import SPANS
from devstack.console.history import History
from devstack.console.log_lines import LogLines
from devstack.console.overview import READ, WINDOWS, course, overview
from devstack.console.rounds import Round, Rounds
from devstack.console.server import Answer, Request
from devstack.console.spans import SpanWriter
from devstack.console.traces import Traces
from devstack.console.works import COUNTED, meaning
from devstack.layout import Layout
from devstack.logs.selection import Selection, parse_level

_Read = TypeVar("_Read")
_JSON = "application/json"
_MAILS = "/mails/"
_MOST_MAILS = 50
# Of a mail's HTML: it is shown, and runs nothing, asks nobody and is of no origin, whoever opens it wherever.
_OF_MAILS: Mapping[str, str] = {
    **pages.SECURITY,
    "cache-control": "no-store",
    "content-security-policy": (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'"
    ),
}
_PROTOBUF = "application/x-protobuf"
_NEVER_KEPT: Mapping[str, str] = {"cache-control": "no-store", **pages.SECURITY}
# Of one request for spans, after it is unpacked.
_MOST_SPANS_BYTES = 16 * 1024 * 1024
# Whoever reads the same files is one at a time; more than so many waiting for it are sent away.
_MOST_READERS = 16
_TRACES_SECONDS = 1.5
# Logs are read this often at most, and what was asked of them since is answered again as it was.
_LOGS_SECONDS = 0.5
_MOST_ANSWERS = 64


class TooLargeError(Exception):
    """A body over the bound."""


class BusyError(Exception):
    """Too many wait for the same files already."""


class Routes:
    """The console of one stack.

    Args:
        layout: where it is.
        writer: keeps spans.
        say: tells of what went wrong.
    """

    def __init__(self, layout: Layout, writer: SpanWriter, say: Callable[[str], None]) -> None:
        self._layout = layout
        self._writer = writer
        self._say = say
        self._past = History(meaning)
        self._alerts = Alerts()
        self.rounds = Rounds(layout, COUNTED | READ | NAMED, self._take, say)
        self._overviews: dict[int, bytes] = {}
        self._traces = Traces(layout.spans)
        self._recent: tuple[float, bytes] = (float("-inf"), b"")
        self._logs = LogLines(layout.logs)
        self._logs_read = float("-inf")
        self._log_answers: dict[frozenset[tuple[str, str]], bytes] = {}
        # They keep nobody waiting but their own.
        self._of_logs, self._of_traces, self._of_trace, self._of_mails = _Turns(), _Turns(), _Turns(), _Turns()
        self._paths: dict[str, Callable[[Request], Awaitable[Answer]]] = {
            "/data/overview": self._overview,
            "/data/course": self._course,
            "/data/traces": self._recent_traces,
            "/data/trace": self._trace,
            "/data/logs": self._log,
            "/data/mails": self._mails,
        }

    async def answer(self, request: Request) -> Answer:
        """What is answered to a request that `callers` lets in."""
        if request.path == SPANS:
            return self._keep(request.body, is_packed=request.headers.get("content-encoding") == "gzip")
        if request.path == "/healthz/ready":
            return Answer(200)
        if (page := pages.page(request.path)) is not None:
            return page
        if (data := self._paths.get(request.path)) is not None:
            return await _answered(data(request))
        if request.path.startswith(_MAILS):
            return await _answered(self._mail(request.path.removeprefix(_MAILS)))
        return documents.document(request.path) or Answer(404, b"There is no such page.\n", headers=pages.SECURITY)

    def _take(self, found: Round) -> None:
        self._past.add(found)
        self._alerts.evaluate(found)
        self._overviews.clear()

    async def _overview(self, request: Request) -> Answer:
        found = await self.rounds.look()
        window = _number(request.parameters.get("window", ""))
        window = window if window in WINDOWS else WINDOWS[0]
        if (body := self._overviews.get(window)) is None:
            told = overview(found, self._past, self._alerts.active, self._layout, window)
            body = self._overviews[window] = msgspec.json.encode(told)
        return Answer(200, body, _JSON, _NEVER_KEPT)

    async def _course(self, request: Request) -> Answer:
        asked = request.parameters
        return _json(course(self._past, asked.get("kind", "")[:100], asked.get("key", "")[:300]))

    async def _recent_traces(self, _request: Request) -> Answer:
        made, body = self._recent
        if time.monotonic() - made > _TRACES_SECONDS:
            found = await self._of_traces.take(self._traces.recent)
            body = msgspec.json.encode(found)
            self._recent = time.monotonic(), body
        return Answer(200, body, _JSON, _NEVER_KEPT)

    async def _trace(self, request: Request) -> Answer:
        try:
            found = await self._of_trace.take(lambda: self._traces.one(request.parameters.get("id", "")))
        except ValueError as error:
            return Answer(400, f"{error}\n".encode(), headers=_NEVER_KEPT)
        return Answer(404, headers=_NEVER_KEPT) if found is None else _json(found)

    async def _mails(self, _request: Request) -> Answer:
        found = await self._of_mails.take(lambda: mails.newest(self._layout.mails, _MOST_MAILS))
        return _json(
            [
                {
                    "id": mail.id, "at": mail.received[0].timestamp(), "times": len(mail.received),
                    "recipient": mail.recipient, "sender": mail.sender, "subject": mail.subject,
                    "message_id": mail.message_id, "text": mail.text,
                }
                for mail in found
                if mail.received
            ]
        )  # fmt: skip

    async def _mail(self, mail_id: str) -> Answer:
        found = await self._of_mails.take(lambda: mails.one(self._layout.mails, mail_id))
        if found is None:
            return Answer(404, b"There is no such mail.\n", headers=_OF_MAILS)
        return Answer(200, found.html.encode(), "text/html; charset=utf-8", _OF_MAILS)

    async def _log(self, request: Request) -> Answer:
        asked = request.parameters
        try:
            level = parse_level(asked.get("level", "") or "debug")
        except ValueError:
            return Answer(400, headers=_NEVER_KEPT)
        process = asked.get("process", "")
        selection = Selection(
            frozenset([process] if process else []), level, request_id=asked.get("request", "")[:200],
            routine="routine" in asked,
        )  # fmt: skip
        key = frozenset(asked.items())
        body = self._log_answers.get(key) if time.monotonic() - self._logs_read <= _LOGS_SECONDS else None
        if body is None:
            after, contains = _number(asked.get("after", "")), asked.get("contains", "")[:200]
            body = await self._of_logs.take(lambda: self._lines(key, after, selection, contains))
        return Answer(200, body, _JSON, _NEVER_KEPT)

    def _lines(self, key: frozenset[tuple[str, str]], after: int, selection: Selection, contains: str) -> bytes:
        # Whoever waited for the lock finds that they were read just now.
        if time.monotonic() - self._logs_read > _LOGS_SECONDS:
            self._logs.read()
            self._log_answers.clear()
            self._logs_read = time.monotonic()
        body = self._log_answers.get(key) or msgspec.json.encode(self._logs.after(after, selection, contains))
        if len(self._log_answers) < _MOST_ANSWERS:
            self._log_answers[key] = body
        return body

    def _keep(self, body: bytes, *, is_packed: bool) -> Answer:
        try:
            unpacked = _unpacked(body) if is_packed else body
            ExportTraceServiceRequest.FromString(unpacked)
        except TooLargeError:
            return Answer(413)
        except (DecodeError, OSError, EOFError, zlib.error):
            return Answer(400)
        try:
            self._writer.add(unpacked)
        except OSError as error:
            self._say(f"spans cannot be kept: {error}")
            return Answer(507)
        return Answer(200, ExportTraceServiceResponse().SerializeToString(), _PROTOBUF)


class _Turns:
    """Who reads the same files, one after the other."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._readers = 0

    async def take(self, read: Callable[[], _Read]) -> _Read:
        """What is read, in a thread.

        Raises:
            BusyError: too many wait already.
        """
        if self._readers >= _MOST_READERS:
            raise BusyError
        self._readers += 1
        try:
            async with self._lock:
                return await asyncio.to_thread(read)
        finally:
            self._readers -= 1


async def _answered(making: Awaitable[Answer]) -> Answer:
    try:
        return await making
    except BusyError:
        return Answer(503, headers=_NEVER_KEPT)


def _json(told: object) -> Answer:
    return Answer(200, msgspec.json.encode(told), _JSON, _NEVER_KEPT)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _unpacked(body: bytes) -> bytes:
    """What gzip made small.

    Raises:
        TooLargeError: it is more than anybody of ours sends.
        OSError, EOFError, zlib.error: it is no gzip.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
        unpacked = file.read(_MOST_SPANS_BYTES + 1)
    if len(unpacked) > _MOST_SPANS_BYTES:
        raise TooLargeError
    return unpacked
