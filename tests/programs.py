"""Tests that need a program of the machine's are marked by it: without it they are left out, and the run says so.

CI requires them (`.ci/run`): there, none is no excuse.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Program:
    """What a mark stands for."""

    mark: str
    # What it may be called.
    names: tuple[str, ...]
    # What is left out without it, and how Debian calls its package.
    needed_for: str
    package: str

    @property
    def path(self) -> str | None:
        return next(filter(None, map(shutil.which, self.names)), None)


_BROWSER = Program(
    "browser", ("chromium", "chromium-browser", "google-chrome"), "the tests of /docs and the console", "chromium"
)
_PROMETHEUS = Program("prometheus", ("prometheus",), "the proofs of the alerts", "prometheus")
_PROMTOOL = Program("promtool", ("promtool",), "the unit tests of Prometheus's rules", "prometheus")
_PROGRAMS = (_BROWSER, _PROMETHEUS, _PROMTOOL)
CHROMIUM, PROMETHEUS, PROMTOOL = (program.path for program in _PROGRAMS)


def pytest_configure(config: pytest.Config) -> None:
    for program in _PROGRAMS:
        config.addinivalue_line("markers", f"{program.mark}: needs {' or '.join(program.names)}")
        if program.path is None and os.environ.get("REQUIRE_PROGRAMS"):
            raise pytest.UsageError(f"REQUIRE_PROGRAMS is set and there is none: apt-get install {program.package}")


def pytest_report_header() -> list[str]:
    return [
        f"{program.mark}: {program.path}"
        if program.path
        else f"{program.mark}: NOT FOUND, {program.needed_for} are left out (apt-get install {program.package})"
        for program in _PROGRAMS
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = [program.mark for program in _PROGRAMS if program.path is None]
    left_out = [item for item in items if any(item.get_closest_marker(mark) for mark in missing)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
