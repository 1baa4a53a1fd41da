from __future__ import annotations

import asyncio
import errno
import io
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from devstack.layout import Layout
from devstack.processes import Processes, Spec
from devstack.state import ProcessState, StackState, read

from devstack import processes, upkeep


class FullStream(io.StringIO):
    """What writes to a disk that is full."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Patient:
    """A process that runs for as long as it is let, and answers its probes or does not."""

    def __init__(self, directory: Path, liveness_seconds: float) -> None:
        self.layout = layout = Layout(directory)
        layout.logs.mkdir()
        self.answers = True
        self.entry = ProcessState("patient")
        me = psutil.Process()
        self.stack = StackState(me.pid, me.create_time(), 0, processes=[self.entry])
        self.processes = Processes(layout, self.stack, liveness_seconds)
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        self.spec = Spec("patient", command, "nothing", is_ready=self._yes, is_alive=self._alive)

    async def _yes(self) -> bool:
        return True

    async def _alive(self) -> bool:
        return self.answers

    async def end(self) -> None:
        self.processes.end_monitoring()
        await self.processes.stop("patient")


async def test_a_process_that_does_not_answer_is_started_again_with_backoff(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = Patient(tmp_path, liveness_seconds=0.3)
    await patient.processes.start(patient.spec)
    first = patient.entry.pid
    patient.answers = False
    async with asyncio.timeout(30):
        while patient.entry.restarts < 2 or patient.entry.state != "ready":
            await asyncio.sleep(0.01)
    patient.answers = True
    await patient.end()
    assert first is not None
    assert not psutil.pid_exists(first)
    said = capsys.readouterr().out
    assert "does not answer; will be killed after 0.3 s" in said
    assert "hung and was killed; starting again in 0.5 s" in said
    assert "hung and was killed; starting again in 1.0 s" in said


async def test_a_full_disk_keeps_nothing_from_being_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its state nor a line of it can be written, and a first try to start it fails; then there is room again."""
    patient, tries = Patient(tmp_path, liveness_seconds=60), 0

    async def before() -> None:
        nonlocal tries
        tries += 1
        if tries == 2:
            raise full()

    def full(*_: object, **__: object) -> OSError:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(*_: object) -> None:
        raise full()

    monkeypatch.setattr(processes, "_SPAWN_RETRY_SECONDS", 0.01)
    await patient.processes.start(replace(patient.spec, before=before))
    keeping = asyncio.create_task(upkeep.keep_state(patient.stack, patient.layout))
    with monkeypatch.context() as disk:
        disk.setattr(StackState, "write", write)
        disk.setattr("sys.stdout", FullStream())
        os.kill(patient.entry.pid or 0, signal.SIGKILL)
        async with asyncio.timeout(30):
            while patient.entry.restarts == 0 or patient.entry.state != "ready":
                await asyncio.sleep(0.01)
    assert tries == 3
    stale = read(patient.layout)
    assert stale is not None
    assert stale.processes[0].pid != patient.entry.pid
    async with asyncio.timeout(30):
        while (written := read(patient.layout)) is None or written.processes[0].pid != patient.entry.pid:
            await asyncio.sleep(0.01)
    keeping.cancel()
    await patient.end()


async def test_a_pause_shorter_than_the_liveness_time_restarts_nothing(tmp_path: Path) -> None:
    patient = Patient(tmp_path, liveness_seconds=6)
    await patient.processes.start(patient.spec)
    pid = patient.entry.pid
    for answers, expected in ((False, "unhealthy"), (True, "ready")):
        patient.answers = answers
        async with asyncio.timeout(5):
            while patient.entry.state != expected:
                await asyncio.sleep(0.01)
    assert (patient.entry.pid, patient.entry.restarts) == (pid, 0)
    await patient.end()
