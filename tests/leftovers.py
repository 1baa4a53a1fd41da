"""What the tests of a run have started ends with the run, whatever ends it; a run that leaves something fails.

A pytest plugin. Stacks see to their end themselves (`--die-with`), a broker or a Prometheus that a test starts does not. All that
descends from a run has the run's mark in its environment. A process of its own waits for the end of the run, gives what
is there a moment to end by itself, kills the rest, and says what that was.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from contextlib import suppress

import psutil
import pytest

MARK = "BACKEND_TEST_RUN"
_PATIENCE_SECONDS = 20


class _Leftovers:
    def __init__(self) -> None:
        os.environ[MARK] = uuid.uuid4().hex
        # Nobody else has the other end of its input: it is closed when this process is gone.
        self._waiting = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._said = ""

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """All workers have ended."""
        self._said = self._waiting.communicate()[0].decode()
        if self._said and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._said:
            terminalreporter.section("left behind, and killed")
            terminalreporter.line(self._said, red=True)


def pytest_configure(config: pytest.Config) -> None:
    """In the process that ends last, not in xdist's workers, which inherit the mark."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Leftovers(), "leftovers-of-the-run")


def of_run(mark: str) -> list[psutil.Process]:
    """The processes of a run, but for the one that asks and its parent."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid not in (os.getpid(), os.getppid()) and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def main() -> None:
    """Wait for the end of the run, and for that of its processes."""
    sys.stdin.buffer.read()
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while (left := of_run(os.environ[MARK])) and time.monotonic() < give_up:
        time.sleep(0.25)
    said = []
    for process in left:
        with suppress(psutil.Error):
            said.append(f"{process.pid} {' '.join(process.cmdline())}")
            process.kill()
    # Where the run is there to hear it.
    with suppress(BrokenPipeError):
        sys.stdout.write("\n".join(said))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
