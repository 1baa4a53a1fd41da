from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psutil
import pytest
from devstack.layout import Layout
from devstack.processes import Processes, Spec
from devstack.state import ProcessState, StackState


class Patient:
    """A process that runs for as long as it is let, and answers its probes or does not."""

    def __init__(self, directory: Path, liveness_seconds: float) -> None:
        layout = Layout(directory)
        layout.logs.mkdir()
        self.answers = True
        self.entry = ProcessState("patient")
        me = psutil.Process()
        stack = StackState(me.pid, me.create_time(), 0, processes=[self.entry])
        self.processes = Processes(layout, stack, liveness_seconds)
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
