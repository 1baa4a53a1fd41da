"""A run that does not run what it collected fails, with workers and without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from devstack.layout import ROOT

LOST = """
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):
    return True if item.name == "test_b" else None
"""
SHARED = """
def pytest_collection_modifyitems(items):
    items[1] = items[0]
"""


def run(directory: Path, conftest: str, *options: str) -> subprocess.CompletedProcess[str]:
    (directory / "conftest.py").write_text(conftest, encoding="utf-8")
    (directory / "test_x.py").write_text("def test_a(): pass\ndef test_b(): pass\n", encoding="utf-8")
    (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")} | {"PYTHONPATH": f"{ROOT}/tests"}
    # Other plugins take seconds to load, and longer in each worker.
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "completeness",
        "-p",
        "xdist.plugin",
        "-p",
        "no:cacheprovider",
        *options,
    ]
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, encoding="utf-8", timeout=60, check=False
    )


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "workers"])
def test_a_test_that_is_lost_fails_the_run(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run(tmp_path, "", *options)
    assert done.returncode == 0, done.stdout
    done = run(tmp_path, LOST, *options)
    assert done.returncode != 0, done.stdout
    assert "NOT RUN test_x.py::test_b" in done.stdout or options


def test_two_tests_of_one_id_fail_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, SHARED)
    assert done.returncode != 0
    assert "share an id" in done.stdout + done.stderr
