"""How long `backend up` takes, cold (a new data directory) and warm, and where the time goes, phase by phase.

    .venv/bin/python tools/bench/start.py
    .venv/bin/python tools/bench/start.py ../other-checkout     # beside another's, by turns

The phases are those of the supervisor's own log. CPU is of everything that the start ran, wherever it ran: on a machine
that others use, too, it says more than the time on the clock. Demo data are left out; they are no part of being ready.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil

ROOT = Path(__file__).resolve().parents[2]
_FIRST_OFFSET = 11000


@dataclass(frozen=True)
class Start:
    """One start: seconds from typing to the prompt's return, CPU seconds of all of it, and when each thing was said."""

    seconds: float
    cpu: float
    # Seconds since the command was typed, by what the supervisor said then.
    said: dict[str, float]
    # CPU seconds at the end, by process.
    processes: dict[str, float]


class Checkout:
    """A checkout with an environment of its own (`make bootstrap`), and where it starts stacks."""

    def __init__(self, root: Path, port_offset: int) -> None:
        self.name = root.name
        self._backend = root / ".venv" / "bin" / "backend"
        self._offset = port_offset

    def start(self, data_dir: Path) -> Start:
        """Start a stack and stop it again.

        Raises:
            SystemExit: it did not start.
        """
        children = psutil.Process().cpu_times()
        began, typed = time.monotonic(), datetime.now(UTC)
        self._run("up", "--detach", "--no-demo", "--data-dir", str(data_dir), "--port-offset", str(self._offset))
        seconds = time.monotonic() - began
        ended = psutil.Process().cpu_times()
        state = json.loads((data_dir / "state.json").read_text(encoding="utf-8"))
        processes = {
            "command": ended.children_user + ended.children_system - children.children_user - children.children_system
        }
        # Its own, and its ended children's: initdb, the migrations.
        processes["supervisor"] = sum(psutil.Process(state["supervisor_pid"]).cpu_times()[:4])
        for entry in state["processes"]:
            process = psutil.Process(entry["pid"])
            processes[entry["name"]] = sum(
                sum(one.cpu_times()[:4]) for one in (process, *process.children(recursive=True))
            )
        said: dict[str, float] = {}
        for line in (data_dir / "logs" / "supervisor.log").read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            moment = datetime.fromisoformat(event["time"])
            if moment >= typed:
                what = event["event"].partition(";")[0].partition(" in ")[0]
                said.setdefault(what, (moment - typed).total_seconds())
        self._run("down", "--data-dir", str(data_dir))
        return Start(seconds, sum(processes.values()), said, processes)

    def _run(self, *arguments: str) -> None:
        done = subprocess.run([self._backend, *arguments], capture_output=True, encoding="utf-8", check=False)
        if done.returncode:
            raise SystemExit(f"{self._backend} {arguments[0]} failed\n{done.stdout}{done.stderr}")


def report(title: str, starts: list[Start]) -> None:
    """Medians: the whole, each moment, each process."""
    print(
        f"\n{title}: {median(s.seconds for s in starts):.2f} s, {median(s.cpu for s in starts):.2f} CPU s"
        f"  (median of {len(starts)}; {min(s.seconds for s in starts):.2f} to {max(s.seconds for s in starts):.2f} s)"
    )
    known = list(dict.fromkeys(what for start in starts for what in start.said))
    moments = {what: median(s.said[what] for s in starts if what in s.said) for what in known}
    before = 0.0
    for what, moment in sorted(moments.items(), key=lambda item: item[1]):
        print(f"  {moment:6.2f} s  +{moment - before:5.2f}  {what}")
        before = moment
    names = dict.fromkeys(name for start in starts for name in start.processes)
    used = {name: median(s.processes[name] for s in starts) for name in names}
    print("  CPU s: " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in used.items()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, nargs="?", help="root of another checkout, with its .venv")
    parser.add_argument("--times", type=int, default=5, help="cold and warm starts of each")
    arguments = parser.parse_args()
    roots = [ROOT, *([arguments.other.resolve()] if arguments.other else [])]
    checkouts = [Checkout(root, _FIRST_OFFSET + 100 * number) for number, root in enumerate(roots)]
    found: dict[str, list[Start]] = {}
    for _ in range(arguments.times):
        for checkout in checkouts:
            with tempfile.TemporaryDirectory(prefix="start-") as directory:
                for kind in ("cold", "warm"):
                    start = checkout.start(Path(directory) / "stack")
                    found.setdefault(f"{checkout.name}, {kind}", []).append(start)
                    print(f"{checkout.name}, {kind}: {start.seconds:.2f} s, {start.cpu:.2f} CPU s", flush=True)
    for title, starts in found.items():
        report(title, starts)


if __name__ == "__main__":
    main()
