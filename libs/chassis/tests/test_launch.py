"""The first process of a container."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The kernel gives this process every orphan below it, as it gives them to a container's first (PR_SET_CHILD_SUBREAPER).
_ADOPTS_ORPHANS = """
import ctypes, os, subprocess, time
from chassis.launch import _reap_orphans
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)

own = subprocess.Popen(["sleep", "60"])
# A shell that ends before the program that it has begun.
shell = subprocess.run(["sh", "-c", "sleep 0.1 & echo $!"], check=True, stdout=subprocess.PIPE, text=True)
orphan = int(shell.stdout)
"""


def _says(script: str) -> list[str]:
    command = [sys.executable, "-c", _ADOPTS_ORPHANS + script]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8", timeout=60).stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="who adopts orphans can be chosen on Linux alone")
class TestOrphans:
    def test_they_are_waited_for_and_its_own_child_is_not(self) -> None:
        script = """
while os.path.exists(f"/proc/{orphan}"):
    _reap_orphans(own.pid)
    time.sleep(0.02)
print(own.poll())
own.kill()
_reap_orphans(own.pid)
print(own.wait())
_reap_orphans(own.pid)
"""
        assert _says(script) == ["None", "-9"]

    def test_without_that_they_would_stay_in_the_process_table(self) -> None:
        script = """
while "State:\\tZ" not in open(f"/proc/{orphan}/status", encoding="utf-8").read():
    time.sleep(0.02)
print("zombie")
own.kill()
"""
        assert _says(script) == ["zombie"]
