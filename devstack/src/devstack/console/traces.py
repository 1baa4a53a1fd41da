"""The recent traces, those that failed and those that were slow first; and one of them as the rows of a waterfall.

Nothing is done when spans come. Whoever looks has what came since the last look read once, and what there is at the first
look; of much, the newest alone. What is kept in memory is bounded, and failed and slow ones are kept longest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mesh.topology import EDGE

from devstack.console import spans, tree
from devstack.console.spans import Span
from devstack.logs.view import printable

# Of segments, read in one look at most: some 10,000 spans.
_MOST_READ_BYTES = 4 * 1024 * 1024
# Traces that are known, and those that are told of each kind.
_MOST_KNOWN = 600
MOST_TOLD = 60
# Of one trace: there is no end to what may name a trace.
_MOST_SPANS = 400
_MOST_SERVICES = 20
# How far a row of a waterfall is set in at most.
_DEEPEST = 40
# Of a text in a list, of one in a waterfall, and of all attributes of a waterfall together.
_LISTED_CHARACTERS = 200
_TEXT_CHARACTERS = 2_000
_ATTRIBUTES_CHARACTERS = 256 * 1024
# Slower than this is slow, whatever others are: the processes keep such a request's spans by themselves.
SLOW_SECONDS = 1.0
_STATUS = ("http.response.status_code", "http.status_code", "rpc.response.status_code")


@dataclass(slots=True)
class _Known:
    """A trace as far as its spans have come. Times are nanoseconds since 1970."""

    began: int
    ended: int
    services: set[str] = field(default_factory=set)
    spans: int = 0
    failed: int = 0
    # Of the span that began first, which is the request's.
    name: str = ""
    service: str = ""
    status: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """One trace in a list: when it began (Unix seconds), how long it took (seconds), how it ended."""

    trace_id: str
    request_id: str
    name: str
    service: str
    status: str
    at: float
    seconds: float
    spans: int
    failed: bool
    slow: bool
    services: Sequence[str]


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a waterfall: where it begins and how long it is, in seconds from the trace's begin."""

    name: str
    service: str
    kind: str
    depth: int
    begin: float
    seconds: float
    failed: bool
    outcome: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Waterfall:
    """One trace, whole."""

    trace_id: str
    request_id: str
    at: float
    seconds: float
    # Whether its edge told of it: else these are the parts of it that failed or were slow.
    sampled: bool
    left_out: int
    # Further traces of the same request.
    other_traces: int
    bars: Sequence[Bar]


class Traces:
    """Those of one stack.

    Args:
        directory: of the segments (`spans.SpanWriter`).
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[str, int] = {}
        self._known: dict[str, _Known] = {}

    def recent(self, count: int = MOST_TOLD) -> list[Trace]:
        """At most so many each of those that failed, that took longest and that are newest; in this order."""
        for span in self._new():
            self._add(span)
        self._forget()
        newest = sorted(self._known.items(), key=lambda entry: -entry[1].began)
        failed = [entry for entry in newest if entry[1].failed]
        slowest = sorted(self._known.items(), key=lambda entry: entry[1].began - entry[1].ended)
        told = dict([*failed[:count], *slowest[:count], *newest[:count]])
        return sorted(
            (_told(*entry) for entry in told.items()), key=lambda one: (not one.failed, not one.slow, -one.at)
        )

    def one(self, trace_id: str) -> Waterfall | None:
        """A trace by its id, or the one that a request is in by the request's; None when nothing is known of it.

        Raises:
            ValueError: no request and no trace has such an id.
        """
        found = spans.of_request(self._directory, trace_id)
        return _waterfall(found) if found.spans else None

    def _add(self, span: Span) -> None:
        known = self._known.get(span.trace_id)
        if known is None:
            known = self._known[span.trace_id] = _Known(span.began, span.ended)
        if not known.name or span.began < known.began:
            known.name, known.service = span.name, span.service
            known.status = next((str(span.attributes[key]) for key in _STATUS if key in span.attributes), "")
        known.began, known.ended = min(known.began, span.began), max(known.ended, span.ended)
        if len(known.services) < _MOST_SERVICES:
            known.services.add(span.service)
        known.spans += 1
        # What a part of it found may be a mistake of the client's; a server's span says whose it was.
        known.failed += span.is_error and span.kind == "server"
        known.request_id = known.request_id or span.request_id

    def _forget(self) -> None:
        """What is older than an hour; of too many, the newest stay, and before them the failed and the slow.

        What ends in more than an hour, by a clock that is wrong, would be the slowest for ever.
        """
        now, hour = time.time() * 1e9, spans.KEPT_SECONDS * 1e9
        kept = [entry for entry in self._known.items() if abs(now - entry[1].ended) < hour]
        if len(kept) > _MOST_KNOWN:
            # Half for what is worth a look, and half for what is new.
            kept.sort(key=lambda entry: (-bool(entry[1].failed), entry[1].began - entry[1].ended))
            worth, others = kept[: _MOST_KNOWN // 2], kept[_MOST_KNOWN // 2 :]
            others.sort(key=lambda entry: -entry[1].began)
            kept = worth + others[: _MOST_KNOWN // 2]
        self._known = dict(kept)

    def _new(self) -> Iterator[Span]:
        """The spans that have come since the last time."""
        segments = spans.segments(self._directory)
        self._read = {path.name: self._read.get(path.name, 0) for path in segments}
        room = _MOST_READ_BYTES
        parts: list[bytes] = []
        for path in reversed(segments):
            try:
                size = path.stat().st_size
                position = self._read[path.name]
                if position >= size or room <= 0:
                    self._read[path.name] = size
                    continue
                requests, end = spans.requests_between(path, position, room)
            except FileNotFoundError:
                # Its hour ended just now.
                continue
            self._read[path.name] = end
            room -= sum(map(len, requests))
            parts = requests + parts
        for part in parts:
            yield from spans.read(part)


def _told(trace_id: str, known: _Known) -> Trace:
    taken = (known.ended - known.began) / 1e9
    return Trace(
        trace_id, listed(known.request_id), listed(known.name), listed(known.service), listed(known.status),
        known.began / 1e9, taken, known.spans, known.failed > 0, taken >= SLOW_SECONDS,
        sorted(map(listed, known.services)),
    )  # fmt: skip


def listed(text: str) -> str:
    """As `_short`, for a list."""
    return _short(text, _LISTED_CHARACTERS)


def _waterfall(found: spans.Found) -> Waterfall:
    first, last = min(span.began for span in found.spans), max(span.ended for span in found.spans)
    nodes = tree.nodes(found.spans)
    return Waterfall(
        trace_id=found.spans[0].trace_id,
        request_id=listed(next((span.request_id for span in found.spans if span.request_id), "")),
        at=first / 1e9,
        seconds=(last - first) / 1e9,
        sampled=any(span.service == EDGE.name for span in found.spans),
        left_out=max(0, len(nodes) - _MOST_SPANS),
        other_traces=found.left_out,
        bars=list(_bars(nodes[:_MOST_SPANS], first)),
    )


def _bars(nodes: list[tree.Node], first: int) -> Iterator[Bar]:
    room = _ATTRIBUTES_CHARACTERS
    for node in nodes:
        span = node.span
        attributes = {listed(key): _short(str(value)) for key, value in sorted(span.attributes.items())}
        size = sum(len(key) + len(value) for key, value in attributes.items())
        if size > room:
            attributes, size = {}, 0
        room -= size
        yield Bar(
            listed(span.name), listed(span.service), span.kind, min(node.depth, _DEEPEST), (span.began - first) / 1e9,
            (span.ended - span.began) / 1e9, span.is_error,
            " ".join(listed(str(span.attributes[key])) for key in tree.SHOWN if key in span.attributes), attributes,
        )  # fmt: skip


def _short(text: str, most: int = _TEXT_CHARACTERS) -> str:
    """With everything escaped that cannot be seen or turns the direction of text; not longer than a reader reads."""
    cut = text if len(text) <= most else f"{text[:most]}…"
    return "\n".join(map(printable, cut.split("\n")))
