"""What a caller accepts."""

from __future__ import annotations

from typing import Any

import pytest
from chassis.http import parsing
from chassis.http.request import Request


async def nothing() -> dict[str, Any]:
    return {"type": "http.request"}


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw}, nothing)


@pytest.mark.parametrize(
    ("accept", "accepted"),
    [
        ("", True), ("*/*", True), ("application/*", True), ("application/json", True), ("text/html", False),
        ("text/html, */*;q=0.1", True), ("application/json;q=0", False), ("*/*;q=0", False),
        ("application/json;q=0, */*", False), ("application/json;q=x", False), ("APPLICATION/JSON", True),
    ],
)  # fmt: skip
def test_accept(accept: str, accepted: bool) -> None:
    assert parsing.accepts(request(accept=accept), "application/json") is accepted
