"""Whether a process that a state file names is still that one."""

from __future__ import annotations

import subprocess

import psutil
import pytest

from devstack import state


@pytest.mark.parametrize(("seconds", "same"), [(0, True), (1, True), (-1, True), (60, False), (-60, False)])
def test_a_process_stays_itself_when_the_clock_is_put_right(seconds: float, same: bool) -> None:
    me = psutil.Process()
    assert state.alive(me.pid, me.create_time() + seconds) == same


def test_who_has_ended_is_not_alive_reaped_or_not() -> None:
    with subprocess.Popen(["true"]) as process:
        created = psutil.Process(process.pid).create_time()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        assert not state.alive(process.pid, created)
    assert not state.alive(process.pid, created)
    assert not state.alive(None, created)
    assert not state.alive(process.pid, None)
