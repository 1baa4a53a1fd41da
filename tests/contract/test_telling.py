"""A run that is ended before its end has said what it found, with workers and without; and a test that hangs is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from devstack.layout import ROOT

TESTS = """
import pathlib, time

def test_a():
    assert "what is" == "what should be"

def test_b():
    pathlib.Path("begun").touch()
    time.sleep(600)
"""

HANGS = """
import asyncio

def test_waits():
    asyncio.run(asyncio.Event().wait())

def test_next():
    pass
"""


def as_in_a_terminal() -> None:
    """Takes a SIGHUP for what it is also when this run was started to outlive one."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("number", "options"),
    [(signal.SIGTERM, ("-n", "1")), (signal.SIGHUP, ())],
    ids=["cancelled, a worker", "terminal closed, one process"],
)
def test_a_run_that_is_ended_says_what_has_failed_and_why(
    tmp_path: Path, number: signal.Signals, options: tuple[str, ...]
) -> None:
    (tmp_path / "test_x.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")} | {"PYTHONPATH": f"{ROOT}/tests"}
    # Other plugins take seconds to load, and longer in the worker.
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    plugins = [part for name in ("telling", "xdist.plugin", "no:cacheprovider") for part in ("-p", name)]
    output = tmp_path / "output"
    with output.open("w", encoding="utf-8") as file:
        run = subprocess.Popen(
            [sys.executable, "-m", "pytest", *plugins, *options],
            cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            preexec_fn=as_in_a_terminal,  # noqa: PLW1509
        )  # fmt: skip
    give_up = time.monotonic() + 60
    said = "FAILED in call: test_x.py::test_a"
    while not (tmp_path / "begun").exists() or said not in output.read_text(encoding="utf-8"):
        assert run.poll() is None, output.read_text(encoding="utf-8")
        assert time.monotonic() < give_up, output.read_text(encoding="utf-8")
        time.sleep(0.05)
    run.send_signal(number)
    assert run.wait(60) == pytest.ExitCode.INTERRUPTED, output.read_text(encoding="utf-8")
    assert "AssertionError: assert 'what is' == 'what should be'" in output.read_text(encoding="utf-8")


def test_a_test_that_hangs_fails_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(HANGS, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    plugins = [part for name in ("telling", "pytest_timeout", "no:cacheprovider") for part in ("-p", name)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")} | {"PYTHONPATH": f"{ROOT}/tests"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "--timeout", "0.2", "--tb=short"],
        cwd=tmp_path, env=environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, capture_output=True, encoding="utf-8",
        timeout=60, check=False,
    )  # fmt: skip
    at_once = done.stdout.partition("FAILED in call: test_x.py::test_waits")[2].partition("= FAILURES =")[0]
    assert "asyncio.run(asyncio.Event().wait())" in at_once, done.stdout
    assert "1 failed, 1 passed" in done.stdout


def test_every_test_of_ours_has_such_a_limit(pytestconfig: pytest.Config) -> None:
    assert 0 < float(pytestconfig.getini("timeout")) <= 1500
