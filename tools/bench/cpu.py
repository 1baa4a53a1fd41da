"""CPU time of the stack's processes."""

from __future__ import annotations

import json
import time

import psutil
from devstack.layout import Layout


class CpuWatch:
    """CPU time of each process of the stack between two moments."""

    def __init__(self, layout: Layout) -> None:
        self._processes = self.envoys(layout) | self._backing(layout)
        self._started = time.monotonic()
        self._before = {name: self._seconds(process) for name, process in self._processes.items()}

    @staticmethod
    def envoys(layout: Layout) -> dict[str, psutil.Process]:
        """The Envoy of each hosted process."""
        state = json.loads(layout.state_file.read_text(encoding="utf-8"))["processes"]
        pids = {p["name"]: p["pid"] for p in state if p["name"] in ("edge", "bff", "user", "order", "limiter")}
        return {name: psutil.Process(pid).children()[0] for name, pid in pids.items()}

    @staticmethod
    def _backing(layout: Layout) -> dict[str, psutil.Process]:
        state = json.loads(layout.state_file.read_text(encoding="utf-8"))["processes"]
        return {p["name"]: psutil.Process(p["pid"]) for p in state if p["name"] in ("postgres", "valkey")}

    @staticmethod
    def _seconds(process: psutil.Process) -> float:
        total = 0.0
        for one in [process, *process.children(recursive=True)]:
            try:
                times = one.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def seconds(self) -> dict[str, float]:
        """CPU time of each since the start, in seconds."""
        return {name: self._seconds(process) - self._before[name] for name, process in self._processes.items()}

    def percent(self) -> dict[str, float]:
        """Percent of one core since the start."""
        elapsed = time.monotonic() - self._started
        return {name: max(0.0, used / elapsed * 100) for name, used in self.seconds().items()}
