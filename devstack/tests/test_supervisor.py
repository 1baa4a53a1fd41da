from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import psutil
import pytest
from devstack.layout import HIGHEST_OFFSET, PORTS, Layout
from devstack.options import MAX_REPLICAS, REPLICATED, Options
from devstack.state import ProcessState, StackState

from devstack import state, supervisor, upkeep


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


def test_a_state_is_running_only_while_its_very_process_lives(tmp_path: Path) -> None:
    layout, me = Layout(tmp_path), psutil.Process()
    StackState(me.pid, me.create_time(), 0, processes=[ProcessState("bff", "ready", 1)]).write(layout)
    known = state.read(layout)
    assert known is not None
    assert (state.is_running(known), known.processes[0].name) == (True, "bff")
    # Another process with the same pid is not it.
    assert not state.alive(os.getpid(), me.create_time() - 100)
    assert not state.is_running(state.read(Layout(tmp_path / "nowhere")))


def test_the_highest_offset_leaves_every_port_valid() -> None:
    options = Options(replicas=dict.fromkeys(REPLICATED, MAX_REPLICAS))
    names = [name for service in ("limiter", *REPLICATED) for name in options.processes(service)]
    ports = [Layout(Path(), HIGHEST_OFFSET).port(name) for name in (*PORTS, *names, *(f"{n}_ops" for n in names))]
    assert max(ports) <= 65535
    # The first replica of each service is in both lists.
    assert len(set(ports)) == len(ports) - 2 * (1 + len(REPLICATED))


class Patient:
    """A process that runs for as long as it is let, and answers its probes or does not."""

    def __init__(self, directory: Path, liveness_seconds: float) -> None:
        layout = Layout(directory)
        layout.logs.mkdir()
        self.answers = True
        self.supervisor = supervisor.Supervisor(layout, Options(liveness_seconds=liveness_seconds))
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        spec = supervisor.Spec("patient", command, "nothing", is_ready=self._yes, is_alive=self._alive)
        self.supervisor._specs = {"patient": spec}
        self.entry = ProcessState("patient")
        self.supervisor._state.processes = [self.entry]

    async def _yes(self) -> bool:
        return True

    async def _alive(self) -> bool:
        return self.answers

    async def end(self) -> None:
        self.supervisor._stopping.set()
        for monitor in self.supervisor._monitors:
            monitor.cancel()
        await self.supervisor._stop_one("patient")


async def test_a_process_that_does_not_answer_is_started_again_with_backoff(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = Patient(tmp_path, liveness_seconds=0.3)
    await patient.supervisor._start_one("patient")
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
    await patient.supervisor._start_one("patient")
    pid = patient.entry.pid
    for answers, expected in ((False, "unhealthy"), (True, "ready")):
        patient.answers = answers
        async with asyncio.timeout(5):
            while patient.entry.state != expected:
                await asyncio.sleep(0.01)
    assert (patient.entry.pid, patient.entry.restarts) == (pid, 0)
    await patient.end()
