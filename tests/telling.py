"""A run says at once which test has failed and in a few lines why, and all of it when it ends, whoever ends it.

A pytest plugin. The whole suite takes a quarter of an hour, and a job that is cancelled ends by SIGTERM, of which pytest
knows nothing, or by SIGKILL, of which nobody does: all that it had found would be lost.
"""

from __future__ import annotations

import signal

import pytest

_LINES = 30


class _Teller:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.write_line(f"\nFAILED in {report.when}: {report.nodeid}", red=True)
            for line in report.longreprtext.splitlines()[-_LINES:]:
                terminal.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    """In the process that reports, not in xdist's workers."""
    if hasattr(config, "workerinput"):
        return
    config.pluginmanager.register(_Teller(config), "teller")
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Under nohup it stays ignored.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
