"""Entity tags, and the conditions that name them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from chassis.errors import ServiceError
from chassis.http.answers import expected_versions, is_current, problem_answer


def test_entity_tags() -> None:
    assert is_current('"3"', 3)
    assert is_current('"1", W/"3"', 3)
    assert is_current("*", 3)
    assert not is_current('"2"', 3)
    assert not is_current(msgspec.UNSET, 3)
    assert is_current(", ".join(f'"{i}"' for i in range(500)) + ', W/"501"', 501)
    assert not is_current('"a,"3"', 3)
    assert not is_current("3", 3)


@pytest.mark.parametrize(
    ("if_match", "versions"),
    [
        (msgspec.UNSET, (None,)), ("*", (None,)), ('"3"', (3,)), ('"1", "3", W/"2"', (3, 1)), ('W/"1"', (0,)),
        ('"abc"', (0,)), ('""', (0,)), ('"01"', (0,)), ('"1,2"', (0,)), ('"' + "9" * 30 + '"', (0,)), ('"0"', (0,)),
    ],
)  # fmt: skip
def test_if_match(if_match: Any, versions: tuple[int | None, ...]) -> None:
    assert expected_versions(if_match) == versions


@pytest.mark.parametrize(
    ("reason", "has_credentials", "challenge"),
    [
        ("UNAUTHENTICATED", False, 'Bearer realm="backend"'),
        ("UNAUTHENTICATED", True, 'Bearer realm="backend", error="invalid_token"'),
        # Nothing is wrong with the token.
        ("INVALID_CREDENTIALS", True, 'Bearer realm="backend"'),
        ("INVALID_REFRESH_TOKEN", True, 'Bearer realm="backend"'),
        ("NOT_FOUND", True, None),
    ],
)
def test_a_token_that_was_presented_and_is_none_any_more_is_named(
    reason: str, has_credentials: bool, challenge: str | None
) -> None:
    answer = problem_answer(ServiceError(reason), "request", has_credentials=has_credentials)
    assert answer.headers.get("www-authenticate") == challenge
