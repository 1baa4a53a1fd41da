"""The one wrapper around every unit of work: what it tells, and what errors become in it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from chassis import context, logging
from chassis.context import RequestContext
from chassis.errors import ServiceError
from chassis.observe import Work, observe, served
from chassis.presence import CallerGoneError
from structlog.testing import capture_logs

HTTP = Work("http", "getThing", served)
READ = Work(
    "database", "SELECT 1", lambda error, _: ServiceError("UNAVAILABLE") if isinstance(error, OSError) else None
)


class OutOfStockError(Exception):
    """A domain error: all it has is a reason of the table."""

    reason = "OUT_OF_STOCK"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(logging, "debugging", True)
    with capture_logs() as found:
        yield found


def told(lines: list[Any]) -> list[tuple[str, str, str]]:
    assert all(line["duration_ms"] >= 0 for line in lines if line["event"] != "unexpected error")
    return [(line["log_level"], line["event"], line.get("outcome", "")) for line in lines]


def run(work: Work, error: BaseException | None) -> BaseException | None:
    def unit() -> None:
        if error is not None:
            raise error

    try:
        with observe(work):
            unit()
    except BaseException as seen:
        return seen
    return None


@pytest.mark.parametrize(
    ("error", "reason", "line"),
    [
        (None, None, ("debug", "http", "OK")),
        (ServiceError("NOT_FOUND"), "NOT_FOUND", ("info", "http", "NOT_FOUND")),
        (OutOfStockError(), "OUT_OF_STOCK", ("info", "http", "OUT_OF_STOCK")),
        (TimeoutError(), "DEADLINE_EXCEEDED", ("info", "http", "DEADLINE_EXCEEDED")),
        (CallerGoneError(), None, ("debug", "http", "CANCELLED")),
        (asyncio.CancelledError(), None, ("debug", "http", "CANCELLED")),
        (GeneratorExit(), None, ("debug", "http", "CANCELLED")),
    ],
)
def test_an_answer_has_one_line_and_one_outcome(
    lines: list[Any], error: BaseException | None, reason: str | None, line: tuple[str, str, str]
) -> None:
    seen = run(HTTP, error)
    assert told(lines) == [line]
    if reason is None:
        assert seen is error
    else:
        assert isinstance(seen, ServiceError)
        assert (seen.reason, seen is error or seen.__cause__ is error) == (reason, True)


def test_what_nobody_expected_is_logged_and_says_nothing(lines: list[Any]) -> None:
    seen = run(HTTP, ValueError("hunter2"))
    assert isinstance(seen, ServiceError)
    assert (seen.reason, seen.detail) == ("INTERNAL", "")
    assert told(lines) == [("error", "unexpected error", ""), ("info", "http", "INTERNAL")]


def test_an_error_becomes_what_its_work_says_or_stays_what_it_is(lines: list[Any]) -> None:
    unreachable, other = run(READ, OSError()), ValueError()
    assert isinstance(unreachable, ServiceError)
    assert run(READ, other) is other
    # Whoever asked for the answer tells of it; the parts only when somebody listens.
    assert told(lines) == [("debug", "database", "UNAVAILABLE"), ("debug", "database", "ValueError")]


def test_nothing_is_said_of_parts_and_of_what_went_well_when_nobody_listens(
    lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "debugging", False)
    for error in (None, CallerGoneError(), asyncio.CancelledError()):
        run(HTTP, error)
    run(READ, None)
    run(READ, OSError())
    assert lines == []
    run(HTTP, ServiceError("NOT_FOUND"))
    assert told(lines) == [("info", "http", "NOT_FOUND")]


async def test_a_cancellation_after_the_deadline_is_the_deadlines() -> None:
    late = RequestContext("request-1", deadline=asyncio.get_running_loop().time() - 1)
    with (
        capture_logs() as lines,
        pytest.raises(asyncio.CancelledError),
        observe(HTTP, late),
    ):
        raise asyncio.CancelledError
    assert told(lines) == [("info", "http", "DEADLINE_EXCEEDED")]


@pytest.mark.parametrize("error", [None, ServiceError("NOT_FOUND"), ValueError(), asyncio.CancelledError()])
def test_the_context_is_current_within_and_no_longer_after(error: BaseException | None) -> None:
    def fail() -> None:
        if error is not None:
            raise error

    within = RequestContext("request-1")
    try:
        with observe(HTTP, within):
            assert context.current() is within
            fail()
    except (ServiceError, asyncio.CancelledError):
        pass
    assert context.current() is None
