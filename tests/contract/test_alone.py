"""A unit test that starts a process fails, and says so; others may."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from devstack.layout import ROOT

STARTS = {
    "subprocess": "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)",
    "fork": "import os; os.waitpid(os.fork() or os._exit(0), 0)",
    "system": "import os; os.system('true')",
    "asyncio": "import asyncio; asyncio.run(asyncio.create_subprocess_exec('true'))",
}
STACK = """
import os, pytest

@pytest.fixture(scope="session")
def stack():
    yield
    os.system("true")
"""


@pytest.mark.parametrize("way", STARTS)
def test_only_what_is_no_unit_test_may_start_a_process(tmp_path: Path, way: str) -> None:
    for place in ("unit", "integration"):
        (tmp_path / "tests" / place).mkdir(parents=True)
        # What the other one's fixture ends, it ends behind the last test, which is the unit test.
        fixture = "stack" if place == "integration" else ""
        text = f"def test_one({fixture}):\n    {STARTS[way]}\n"
        (tmp_path / "tests" / place / f"test_{place}.py").write_text(text, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (tmp_path / "conftest.py").write_text(STACK, encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")} | {
        "PYTHONPATH": f"{ROOT}/tests",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pytest", "-q", "-p", "alone", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert "1 failed, 1 passed in" in done.stdout, done.stdout
    assert "tests/unit/test_unit.py::test_one starts a process" in done.stdout
