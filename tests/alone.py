"""What is in a directory `tests/unit` starts no process: a pytest plugin, and the promise of `make test-unit`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# What Python says before each way to start one: https://docs.python.org/3/library/audit_events.html
_STARTS = frozenset({"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"})
_PLACE = "/tests/unit/"
_now: list[str] = []


def _refuse(event: str, _: tuple[object, ...]) -> None:
    if _now and event in _STARTS:
        raise RuntimeError(f"{_now[0]} starts a process ({event}), which no unit test does")


def pytest_configure() -> None:
    """Python keeps such a hook until it ends."""
    sys.addaudithook(_refuse)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """With its fixtures."""
    with _looked_at(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Not the end of its fixtures as well: behind a worker's last test, what others had started is stopped."""
    with _looked_at(item):
        return (yield)


@contextmanager
def _looked_at(item: pytest.Item) -> Iterator[None]:
    """In each thread: some wait for one that works for them."""
    if _PLACE in f"/{item.nodeid}":
        _now.append(item.nodeid)
    try:
        yield
    finally:
        _now.clear()
