"""A worker that ends is started again, and until then the process says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from chassis.admission import Admission
from chassis.lifecycle import Composition, ServiceProcess
from chassis.metrics.exposition import exposition
from chassis.metrics.families import FAMILIES
from chassis.workers import Workers


class Worker:
    """Ends, or fails, as often as it is told, and then runs until it is cancelled."""

    def __init__(self, failures: int = 0, error: BaseException | None = None) -> None:
        self.left = failures
        self.error = error
        self.began = 0
        self.runs = asyncio.Event()
        self.stopped = False

    async def run(self) -> None:
        self.began += 1
        if self.left:
            self.left -= 1
            if self.error:
                raise self.error
            return
        self.runs.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped = True


@pytest.mark.parametrize("error", [RuntimeError("a secret"), None, TimeoutError(), asyncio.CancelledError()])
async def test_what_ends_is_started_again_and_counted(error: BaseException | None) -> None:
    worker, other = Worker(3, error), Worker()
    async with Workers({"sweep": worker.run, "other": other.run}, first_pause=0.001) as workers:
        await asyncio.wait_for(worker.runs.wait(), 30)
        assert (worker.began, other.began, workers.ended()) == (4, 1, {})
        _, metrics = exposition(FAMILIES.values(), "", open_metrics=False)
        assert 'backend_worker_restarts_total{worker="sweep"} 3\n' in metrics
        assert 'backend_worker_restarts_total{worker="other"} 0\n' in metrics
    assert worker.stopped
    assert other.stopped


async def test_the_last_one_started_is_the_first_one_stopped() -> None:
    stopped = []

    def work(name: str) -> Any:
        async def run() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                stopped.append(name)

        return run

    async with Workers({name: work(name) for name in ("a", "b", "c")}):
        await asyncio.sleep(0)
    assert stopped == ["c", "b", "a"]


async def test_the_process_is_ready_and_says_which_one_does_not_run() -> None:
    sweep = Worker(1, RuntimeError("a secret"))

    async def application(*_: Any) -> None: ...

    @asynccontextmanager
    async def compose() -> AsyncIterator[Composition]:
        yield Composition(application, Admission(), workers={"sweep": sweep.run})
        # Everything that a worker uses is closed after it.
        assert sweep.stopped or sweep.left == 0

    process = ServiceProcess(compose)
    started, stop = asyncio.Event(), asyncio.Event()

    async def receive() -> dict[str, Any]:
        if started.is_set():
            await stop.wait()
        return {"type": "lifespan"}

    async def send(_message: MutableMapping[str, Any]) -> None:
        started.set()

    async def ask(path: str) -> tuple[int, bytes]:
        sent: list[MutableMapping[str, Any]] = []

        async def keep(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await process.ops({"type": "http", "path": path}, receive, keep)
        return sent[0]["status"], sent[1]["body"]

    serving = asyncio.create_task(process({"type": "lifespan"}, receive, send))
    await asyncio.wait_for(started.wait(), 5)
    while not sweep.began:
        await asyncio.sleep(0)
    status, body = await ask("/healthz/ready")
    assert (status, msgspec.json.decode(body)) == (200, {"ready": True, "worker sweep": "failed: RuntimeError"})
    assert b'backend_worker_running{worker="sweep"} 0\n' in (await ask("/metrics"))[1]
    stop.set()
    await serving
