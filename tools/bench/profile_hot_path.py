"""A sampling profile of the BFF and the Order service under load, by py-spy, as a table of where Python spends it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
from devstack.layout import Layout

_SECONDS = 4
# What to look for in a stack, innermost match wins: a name for the reader, and how a frame is recognised.
_PARTS = (
    ("Valkey", ("chassis/valkey.py", "redis/")),
    ("gRPC call to the Order service", ("chassis/grpc/channel.py", "chassis/grpc/peer.py", "chassis/host.py")),
    ("gRPC server", ("chassis/grpc/server.py", "chassis/grpc/policy.py", "chassis/grpc/rules.py")),
    ("logging", ("structlog/", "chassis/logging.py")),
    ("deadlines (asyncio.timeout)", ("asyncio/timeouts.py",)),
    ("token and session check", ("chassis/tokens.py", "bff/sessions.py", "bff/authentication.py")),
    ("routing, requests, responses", ("starlette/", "chassis/http/")),
    ("shaping and handlers", ("bff/shapes.py", "bff/handlers", "order/", "chassis/cache.py")),
)


def profile(layout: Layout, load: Callable[[], object]) -> str:
    """Run `load` and sample both services meanwhile; a Markdown table, or a line that says why there is none."""
    py_spy = Path(sys.executable).parent / "py-spy"
    if not py_spy.exists():
        return "py-spy is not installed; no profile.\n"
    lines = ["| process | part | share of its Python time |", "|---|---|---|"]
    for name in ("bff", "order"):
        worker = threading.Thread(target=load)
        worker.start()
        samples = _sample(py_spy, _pid(layout, name))
        worker.join()
        total = sum(samples.values())
        if not total:
            return "py-spy may not read other processes here; no profile.\n"
        lines += [f"| {name} | {part} | {count / total:.0%} |" for part, count in samples.most_common(8)]
    return "\n".join(lines) + "\n"


def _pid(layout: Layout, name: str) -> int:
    config = str(layout.envoy / f"{name}.yaml")
    for process in psutil.process_iter(["cmdline", "name"]):
        if process.info["name"] == "envoy" and config in (process.info["cmdline"] or []):
            return int(process.pid)
    raise RuntimeError(f"{name} does not run")


def _sample(py_spy: Path, pid: int) -> Counter[str]:
    parts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        raw = Path(directory) / "raw"
        command = [str(py_spy), "record", "--nonblocking", "--duration", str(_SECONDS), "--rate", "500",
                   "--pid", str(pid), "--format", "raw", "--output", str(raw)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0 or not raw.exists():
            return parts
        for line in raw.read_text(encoding="utf-8").splitlines():
            stack, _, count = line.rpartition(" ")
            if stack.strip():
                parts[_part(stack.split(";"))] += int(count)
    return parts


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        for name, needles in _PARTS:
            if any(needle in frame for needle in needles):
                return name
    return "other"
