"""Which path is whose, and what a request says of its headers."""

from __future__ import annotations

from typing import Any

import pytest
from chassis.http.request import Request
from chassis.http.routes import Routes, parameters_of
from contracts.bff.v1.operations import OPERATIONS
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Match, Route

PATHS = sorted({operation.path for operation in OPERATIONS})
ROUTES = Routes({path: path for path in PATHS})
# What the dictionary and the templates stand in for.
REFERENCE = [Route(path, lambda _: None) for path in sorted(PATHS, key=lambda path: "{" in path)]
SEGMENT = st.sampled_from(sorted({part for path in PATHS for part in path.split("/")})) | st.text(max_size=8)


@given(st.lists(SEGMENT, max_size=6).map("/".join))
def test_every_path_is_found_as_starlette_finds_it(path: str) -> None:
    scope = {"type": "http", "method": "GET", "path": path, "root_path": ""}
    matches = ((route, route.matches(scope)) for route in REFERENCE)
    expected = next(
        ((route.path, found["path_params"]) for route, (match, found) in matches if match is Match.FULL), None
    )
    # Starlette's templates end before a last line feed, which is then part of no parameter.
    if not path.endswith("\n"):
        assert ROUTES.find(path) == expected


@pytest.mark.parametrize("path", PATHS)
def test_every_operation_is_found(path: str) -> None:
    names = parameters_of(path)
    filled = path.format_map({name: f"{name}.%C3" for name in names})
    assert ROUTES.find(filled) == (path, {name: f"{name}.%C3" for name in names})
    if not path.endswith("}"):
        for tail in ("x", "/", "\n"):
            assert (ROUTES.find(filled + tail) or ("",))[0] != path


def test_written_out_goes_before_a_template_and_the_first_template_before_the_next() -> None:
    routes = Routes({"/{a}/b": 1, "/x/b": 2, "/x/{c}": 3})
    assert routes.find("/x/b") == (2, {})
    assert routes.find("/y/b") == (1, {"a": "y"})
    assert routes.find("/x/c") == (3, {"c": "c"})
    assert routes.find("//b") is None


async def nothing() -> dict[str, Any]:
    return {"type": "http.request"}


def request(*lines: tuple[bytes, bytes]) -> Request:
    return Request({"type": "http", "headers": list(lines)}, nothing)


def test_several_lines_of_one_name_are_one_list_and_each_can_still_be_had() -> None:
    several = request((b"a", b"1"), (b"b", b"x"), (b"a", b"2"), (b"a", b"\xe9"))
    assert (several.header(b"a"), several.lines(b"a")) == ("1, 2, é", ["1", "2", "é"])
    assert (several.header(b"b"), several.only(b"b")) == ("x", "x")
    assert several.only(b"a") is None


def test_what_is_not_there_is_none() -> None:
    one = request((b"a", b""))
    assert (one.header(b"a"), one.only(b"a"), one.lines(b"a")) == ("", "", [""])
    assert (one.header(b"b"), one.only(b"b"), one.lines(b"b"), one.peer) == (None, None, [], "")
