"""What the Envoy host does to the event loop; the host itself is under every test through a running stack."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import uvloop
from chassis.host import accept_late_answers

Answer = Callable[[Any], object]


def complaints(answer: Callable[[Answer], Answer]) -> list[str]:
    """What the loop reports when waits that were given up are answered nevertheless."""
    found: list[str] = []

    async def give_up_and_be_answered() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: found.append(type(context["exception"]).__name__))
        accept_late_answers(loop)
        result, failure = loop.create_future(), loop.create_future()
        result.cancel()
        failure.cancel()
        loop.call_soon(answer(result.set_result), "an answer")
        loop.call_soon(answer(failure.set_exception), ConnectionError("reset"))
        await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(give_up_and_be_answered())
    return found


def test_an_answer_that_nobody_waits_for_is_no_error() -> None:
    # As the host answers: native code, called by the loop.
    assert complaints(lambda native: native) == []


def test_the_same_mistake_of_ours_is_one() -> None:
    assert complaints(lambda native: lambda value: native(value)) == ["InvalidStateError"] * 2  # noqa: PLW0108


def test_any_other_error_is_reported_as_before() -> None:
    assert complaints(lambda _: partial(int)) == ["ValueError", "TypeError"]


def test_the_default_report_stays(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        loop = asyncio.get_running_loop()
        accept_late_answers(loop)
        loop.call_soon(int, "no number")
        await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(fail())
    assert "Exception in callback" in caplog.text
