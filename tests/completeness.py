"""A run is what was collected: every test has an id of its own, and each one ran.

A pytest plugin; whatever divides the tests among workers, a test that it loses fails the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two tests of one id are one to a scheduler."""
    if shared := [identifier for identifier, count in Counter(item.nodeid for item in items).items() if count > 1]:
        raise pytest.UsageError(f"tests share an id, so that some would not run: {', '.join(shared[:5])}")


class _Ledger:
    """What was collected and what ran, in the process that reports."""

    def __init__(self) -> None:
        self.collected: set[str] = set()
        self.ran: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.collected.update(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self.collected.update(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.ran.add(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.exitstatus == pytest.ExitCode.OK and not session.config.option.collectonly and self.missing():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        stopped = exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR)
        if not stopped and not terminalreporter.config.option.collectonly:
            for identifier in self.missing():
                terminalreporter.line(f"NOT RUN {identifier}", red=True)

    def missing(self) -> Iterable[str]:
        return sorted(self.collected - self.ran)


def pytest_configure(config: pytest.Config) -> None:
    """Only the reporting process keeps the ledger, not xdist's workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Ledger(), "completeness-ledger")
