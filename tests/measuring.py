"""`pytest -n 2 --coverage` measures what of our code the whole suite runs, and fails below a floor.

A pytest plugin. Measured are lines and branches, in the workers and in every process of the stacks that they start: the
`backend` command, the supervisor, and the Python inside Envoy (devstack/coverage_in_envoy.py).
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import coverage
import pytest
from coverage.exceptions import CoverageWarning
from mesh.topology import SERVICES

# Percent of lines and branches together: what is reached, rounded down. It only ever goes up.
FLOOR = 90
_LEAST_COVERED = 10
# What these look at grows with what is noted of each line.
_OF_MEMORY = ("test_hot_reads_leave_memory_where_it_was",)
_SETTINGS = """\
[run]
branch = true
parallel = true
data_file = {directory}/data
source_pkgs = {packages}
plugins = devstack.coverage_in_envoy
# It runs before anything is measured.
omit = */devstack/coverage_in_envoy.py
# Most processes run one package and never import the others.
disable_warnings = no-data-collected, module-not-imported, module-not-measured

[report]
precision = 1
# Of copies of the repository that tests make, which are gone by now.
ignore_errors = true
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The one option."""
    parser.addoption("--coverage", action="store_true", help="measure coverage, and fail below the floor (with -n)")


class _Measurement:
    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="coverage-"))
        settings = self._directory / "settings"
        packages = ["contract_runtime", "chassis", "mesh", "devstack", *(service.package for service in SERVICES)]
        text = _SETTINGS.format(directory=self._directory, packages=", ".join(packages))
        settings.write_text(text, encoding="utf-8")
        # Every Python that this run starts from here on begins by measuring itself: coverage's .pth file sees to it.
        os.environ["COVERAGE_PROCESS_START"] = str(settings)
        self._report = io.StringIO()
        self._percent = 0.0

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """All workers have ended, and with them their stacks."""
        measured = coverage.Coverage(config_file=os.environ.pop("COVERAGE_PROCESS_START"))
        try:
            with warnings.catch_warnings():
                # Of a process that was killed while it wrote, as tests do.
                warnings.simplefilter("ignore", CoverageWarning)
                measured.combine([str(self._directory)])
            self._percent = measured.report(file=self._report, sort="cover", skip_covered=True)
        except coverage.exceptions.CoverageException as error:
            self._report.write(str(error))
        finally:
            shutil.rmtree(self._directory)
        if session.exitstatus == pytest.ExitCode.OK and self._percent < FLOOR:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("coverage")
        lines = self._report.getvalue().splitlines()
        for line in lines[: _LEAST_COVERED + 2]:
            terminalreporter.line(line)
        said = f"{self._percent:.1f} % of our lines and branches ran; at least {FLOOR} % have to"
        terminalreporter.line(said, red=self._percent < FLOOR)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Measured, a process needs more memory; whether it needs ever more is what a run without this shows."""
    if config.option.coverage:
        items[:] = [item for item in items if item.name not in _OF_MEMORY]


def pytest_configure(config: pytest.Config) -> None:
    """In the process that reports, before it starts workers: it runs no test itself."""
    if config.option.coverage and not hasattr(config, "workerinput"):
        if not config.option.numprocesses:
            raise pytest.UsageError("--coverage measures the workers of -n 2, and the processes that they start")
        config.pluginmanager.register(_Measurement(), "coverage-measurement")
