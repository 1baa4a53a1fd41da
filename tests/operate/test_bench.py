"""The stack that `make bench` measures can be started, filled and called."""

from __future__ import annotations

import re
import subprocess
import sys

from devstack.layout import ROOT

from conftest import free_port_offset


def test_a_stack_to_measure_is_started_called_and_stopped() -> None:
    command = ["tools/bench/steady.py", "--seconds", "1", "--share", "0.1", "--port-offset", str(free_port_offset())]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"0\.1 of what can be served, [\d,]+/s: [1-9][\d,]* requests, 0 refused, .*\n", done.stdout)
