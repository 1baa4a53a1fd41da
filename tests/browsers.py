"""Tests marked `browser` need Chromium: without one they are left out, and the run says so; CI requires it."""

from __future__ import annotations

import os
import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_REQUIRED = bool(os.environ.get("REQUIRE_BROWSER"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: runs in a real Chromium")
    if CHROMIUM is None and _REQUIRED:
        raise pytest.UsageError("REQUIRE_BROWSER is set and there is no Chromium: apt-get install chromium")


def pytest_report_header() -> str:
    if CHROMIUM is None:
        return "browser: NO CHROMIUM FOUND, the tests of /docs in a browser are left out (apt-get install chromium)"
    return f"browser: {CHROMIUM}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if CHROMIUM is not None:
        return
    left_out = [item for item in items if item.get_closest_marker("browser")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
