"""What tracing takes of the Python of a hot read: the BFF's and Order's own applications, without, not sampled and sampled.

    .venv/bin/python tools/bench/traced_read.py

The applications and their host are those of `hot_read_service.py`; a console in a process of its own takes the spans. All
three by turns in one process, so that what else the machine does weighs on all alike; CPU is of all its threads, so the
exporter's is in it, and not the console's.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import hot_read_service as bench
from chassis.logging import configure
from chassis.tracing import spans
from chassis.tracing.exporter import Exporter
from chassis.tracing.process import Tracing
from devstack.layout import Layout
from mesh.topology import CONSOLE

_ROUNDS = 41
_REQUESTS = 250
_KINDS = {"off": None, "not sampled": b"00", "sampled": b"01"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def _measure(service: str, directory: Path, endpoint: str) -> dict[str, list[float]]:
    """µs a request of each kind, round by round."""
    configure(service, environment="test", version="bench")
    token = bench.access_token(directory)
    os.environ.update(bench.environment(directory))
    application, request, body = {"bff": bench.bff, "order": bench.order_service}[service](token)
    traceparent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-".encode()
    hosts = {}
    for kind, flags in _KINDS.items():
        added = [] if flags is None else [(b"traceparent", traceparent + flags)]
        hosts[kind] = bench.Host(application, {**request, "headers": [*request["headers"], *added]}, body)
    found: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    with Tracing(Exporter(endpoint, {"service.name": service}, compress=False)) as tracing:
        for host in hosts.values():
            await host.serve(_REQUESTS)
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        for _ in range(_ROUNDS):
            # Whoever comes after a pause finds the processor's caches cold.
            for kind, host in random.sample(list(hosts.items()), len(hosts)):
                spans.recorder = None if kind == "off" else tracing
                began = time.process_time()
                await host.serve(_REQUESTS)
                # The exporter sends twice a second.
                await asyncio.sleep(0.7 if kind == "sampled" else 0)
                found[kind].append((time.process_time() - began) / _REQUESTS * 1e6)
    return found


def main() -> None:
    """Measure, and print a table in Markdown."""
    if len(sys.argv) > 1:
        bench.install_host()
        with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=bench.Loop) as runner:
            found = runner.run(_measure(sys.argv[1], Path(directory), sys.argv[2]))
        for kind, costs in found.items():
            # The quickest tenth: what others do on the machine only ever makes it slower.
            least, off = (quantiles(one, n=10)[0] for one in (costs, found["off"]))
            print(f"| {sys.argv[1]} | {kind} | {least:.1f} µs | {least - off:+.1f} µs | {median(costs):.1f} µs |")
        return
    print(
        "| service | tracing | Python of a hot read, the quickest tenth | more than without | median |\n|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as directory:
        port = _free_port()
        offset = port - Layout(Path(directory), 0).port(CONSOLE)
        console = subprocess.Popen(
            [sys.executable, "-m", "devstack.console", "--data-dir", directory, "--port-offset", str(offset)],
            stdout=subprocess.DEVNULL,
        )
        try:
            for service in ("bff", "order"):
                subprocess.run([sys.executable, __file__, service, f"http://127.0.0.1:{port}"], check=True)
        finally:
            console.terminate()
            console.wait()


if __name__ == "__main__":
    main()
