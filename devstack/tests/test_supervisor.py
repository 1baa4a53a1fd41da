from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
import pytest
from devstack.layout import Layout
from devstack.state import ProcessState, StackState

from devstack import state, upkeep


async def test_a_log_over_its_limit_begins_anew_and_keeps_one_older_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_LOG_LIMIT_BYTES", 1000)
    layout = Layout(tmp_path)
    layout.logs.mkdir()
    log = layout.logs / "bff.log"
    with log.open("ab") as writer:
        writer.write(b"x" * 2000)
        writer.flush()
        bounding = asyncio.create_task(upkeep.bound_logs(layout))
        await asyncio.sleep(0.3)
        writer.write(b"after\n")
        writer.flush()
        bounding.cancel()
    assert log.read_bytes() == b"after\n"
    assert log.with_suffix(".log.1").stat().st_size == 2000


async def test_a_log_that_a_full_disk_does_not_let_be_copied_is_bounded_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_LOG_LIMIT_BYTES", 1000)
    monkeypatch.setattr(upkeep, "_LOG_CHECK_SECONDS", 0.01)
    layout = Layout(tmp_path)
    layout.logs.mkdir()
    log = layout.logs / "bff.log"
    log.write_bytes(b"x" * 2000)
    # Neither can be copied to a directory.
    log.with_suffix(".log.1").mkdir()
    bounding = asyncio.create_task(upkeep.bound_logs(layout))
    await asyncio.sleep(0.1)
    assert log.stat().st_size == 2000
    log.with_suffix(".log.1").rmdir()
    async with asyncio.timeout(30):
        while log.stat().st_size:
            await asyncio.sleep(0.01)
    bounding.cancel()


def test_a_state_is_running_only_while_its_very_process_lives(tmp_path: Path) -> None:
    layout, me = Layout(tmp_path), psutil.Process()
    StackState(me.pid, me.create_time(), 0, processes=[ProcessState("bff", "ready", 1)]).write(layout)
    known = state.read(layout)
    assert known is not None
    assert (state.is_running(known), known.processes[0].name) == (True, "bff")
    # Another process with the same pid is not it.
    assert not state.alive(os.getpid(), me.create_time() - 100)
    assert not state.is_running(state.read(Layout(tmp_path / "nowhere")))
