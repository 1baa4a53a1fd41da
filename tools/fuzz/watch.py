"""What must not change while somebody misbehaves: another client's answers, the connections behind, what a process takes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import httpx
import psutil

# Of Envoy's counters of an upstream cluster: connections that ended, and what ends them or leaves a replica out.
_ENDS = (
    "upstream_cx_destroy", "upstream_cx_connect_fail", "upstream_cx_protocol_error", "upstream_rq_rx_reset", "upstream_rq_timeout",
    "outlier_detection_ejections_detected_consecutive_local_origin_failure", "outlier_detection_ejections_enforced_total",
)  # fmt: skip


class Reader:
    """Asks ten times a second; what was answered."""

    def __init__(self, ask: Callable[[], Awaitable[httpx.Response]]) -> None:
        self._ask = ask
        self.seen: Counter[str] = Counter()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Counter[str]]:
        """Until the block ends."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._read(stop))
        try:
            yield self.seen
        finally:
            stop.set()
            await task

    async def _read(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                self.seen[str((await self._ask()).status_code)] += 1
            except httpx.HTTPError as error:
                self.seen[type(error).__name__] += 1
            await asyncio.sleep(0.1)


async def upstream_ends(ops: str, cluster: str) -> Mapping[str, float]:
    """How often a connection to a cluster's replicas ended, a stream was reset, a replica was left out."""
    found = await metrics(ops)
    label = f'envoy_cluster_name="{cluster}"'
    return {name: found.get(f"envoy_cluster_{name}{{{label}}}", 0.0) for name in _ENDS}


async def metrics(ops: str) -> dict[str, float]:
    """Envoy's own counters at an ops endpoint, by name with labels."""
    async with httpx.AsyncClient(timeout=30) as client:
        text = (await client.get(f"{ops}/metrics/envoy")).text
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def private_bytes(pid: int) -> int:
    """Memory of a process and all its children that no other has, too."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(int(process.memory_full_info().uss) for process in processes)
