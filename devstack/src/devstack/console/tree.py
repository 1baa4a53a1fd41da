"""A trace as a tree of lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from devstack.console.spans import Span, Value
from devstack.logs.view import printable

_NAME_WIDTH = 62
_BAR_WIDTH = 24
# What a line says of a span beside its name, of those that it has.
SHOWN = (
    "http.response.status_code",
    "rpc.response.status_code",
    "error.type",
    "backend.outcome",
    "db.response.status_code",
)


@dataclass(frozen=True, slots=True)
class Node:
    """A span and how deep it is in its tree; 0 for one whose parent is not known."""

    span: Span
    depth: int


def nodes(spans: Sequence[Span]) -> list[Node]:
    """Each span behind its parent, parts of one by when they began."""
    known = {span.span_id for span in spans}
    parts: dict[str, list[Span]] = {}
    for span in spans:
        parts.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)
    found: list[Node] = []
    seen: set[str] = set()
    # What is still to be added, the next last. It may be deeper than Python's own stack.
    waiting = [Node(span, 0) for span in [*parts.get("", ()), *spans]][::-1]
    while waiting:
        node = waiting.pop()
        # Ids come from outside: a circle of parents must not be one here.
        if node.span.span_id in seen:
            continue
        seen.add(node.span.span_id)
        found.append(node)
        waiting += [Node(part, node.depth + 1) for part in reversed(parts.get(node.span.span_id, ()))]
    return found


def lines(spans: Sequence[Span]) -> Iterator[str]:
    """A line a span: when it began and how long it took (milliseconds), whose it is, its name, how it ended."""
    first, last = min(span.began for span in spans), max(span.ended for span in spans)
    yield f"{'start':>9} {'ms':>9}  {'':{_BAR_WIDTH}}  span"
    for node in nodes(spans):
        span = node.span
        name = f"{'  ' * node.depth}{printable(span.service)}  {printable(span.name)}"
        ends = " ".join(_said(span.attributes[key]) for key in SHOWN if key in span.attributes)
        mark = " !" if span.is_error else ""
        yield (
            f"{(span.began - first) / 1e6:>9.2f} {(span.ended - span.began) / 1e6:>9.2f}  "
            f"{_bar(span, first, last)}  {name:<{_NAME_WIDTH}} {ends}{mark}"
        ).rstrip()
        if span.is_error and isinstance(text := span.attributes.get("db.query.text"), str):
            yield from (f"{'':{_BAR_WIDTH + 24 + 2 * node.depth}}{printable(row)}" for row in text.splitlines())


def _bar(span: Span, first: int, last: int) -> str:
    scale = _BAR_WIDTH / max(1, last - first)
    begin = min(_BAR_WIDTH - 1, int((span.began - first) * scale))
    length = max(1, min(_BAR_WIDTH - begin, round((span.ended - span.began) * scale)))
    return f"{' ' * begin}{'━' * length}".ljust(_BAR_WIDTH)


def _said(value: Value) -> str:
    return printable(str(value))
