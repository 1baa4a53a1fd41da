"""A request as its handlers see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope

Lines = Iterable[tuple[bytes, bytes]]


class Request:
    """An ASGI request, its headers read in one pass.

    Starlette's goes through all header lines again for each header that is asked for, and takes three times as long
    (ADR 0026, `tools/bench/hot_read_parts.py`).

    Header names are given as ASGI has them: bytes, in lower case.
    """

    __slots__ = ("_headers", "_repeats", "parameters", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive, parameters: Mapping[str, str] | None = None) -> None:
        self.scope = scope
        self.receive = receive
        # Those of the path, by name.
        self.parameters = parameters or {}
        lines = scope["headers"]
        headers: dict[bytes, bytes] = dict(lines)
        self._repeats = len(headers) != len(lines)
        self._headers = _joined(lines) if self._repeats else headers

    @property
    def method(self) -> str:
        """Of the request line, upper case."""
        method: str = self.scope["method"]
        return method

    @property
    def path(self) -> str:
        """Decoded, without the query."""
        path: str = self.scope["path"]
        return path

    @property
    def peer(self) -> str:
        """The address of the immediate peer, or nothing."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    @property
    def origin(self) -> str:
        """Where the request was sent, as far as it says so itself: scheme, and authority."""
        return f"{self.scope['scheme']}://{self.header(b'host') or ''}"

    def header(self, name: bytes) -> str | None:
        """A header's value; several lines of one name are one list (RFC 9110, section 5.3)."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    def lines(self, name: bytes) -> list[str]:
        """The values of all lines of a name, for what is no list."""
        return [value.decode("latin-1") for key, value in self.scope["headers"] if key == name]

    def only(self, name: bytes) -> str | None:
        """The value of a header that has one line; None when there is none, or more than one."""
        if self._repeats and len(self.lines(name)) > 1:
            return None
        return self.header(name)

    def query(self) -> dict[str, str]:
        """The parameters of the query; of repeated ones the last."""
        return dict(parse_qsl(self.scope["query_string"].decode("latin-1"), keep_blank_values=True))


def _joined(lines: Lines) -> dict[bytes, bytes]:
    values: dict[bytes, list[bytes]] = {}
    for name, value in lines:
        values.setdefault(name, []).append(value)
    return {name: b", ".join(found) for name, found in values.items()}
