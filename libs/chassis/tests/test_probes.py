"""What the probes of a process say: what the start waits for, what each check found, and that the loop hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from chassis import lifecycle
from chassis.admission import Admission
from chassis.lifecycle import Composition, ServiceProcess, patiently


async def application(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("no traffic")


async def ask(process: ServiceProcess, path: str, query: bytes = b"") -> tuple[int, dict[str, Any]]:
    sent: list[MutableMapping[str, Any]] = []

    async def keep(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    await process.ops({"type": "http", "method": "GET", "path": path, "query_string": query}, receive, keep)
    assert dict(sent[0]["headers"])[b"content-length"] == str(len(sent[1]["body"])).encode()
    return sent[0]["status"], msgspec.json.decode(sent[1]["body"])


class Server:
    """What a service needs, and whether it is there."""

    def __init__(self) -> None:
        self.is_there = False

    async def ping(self) -> None:
        if not self.is_there:
            raise ConnectionRefusedError("connection refused")


async def fine() -> None:
    pass


async def test_each_probe_says_what_it_found() -> None:
    database = Server()

    @asynccontextmanager
    async def compose() -> AsyncIterator[Composition]:
        await patiently("PostgreSQL", database.ping)
        yield Composition(
            application,
            Admission(),
            readiness={"postgresql": database.ping},
            details={"valkey-cache": fine},
            workers={"sweep": asyncio.Event().wait},  # type: ignore[dict-item]
        )

    process = ServiceProcess(compose)
    stop, states = asyncio.Event(), asyncio.Queue[str]()
    messages = iter([fine, stop.wait])

    async def receive() -> dict[str, Any]:
        await next(messages)()
        return {"type": "lifespan"}

    async def send(message: MutableMapping[str, Any]) -> None:
        await states.put(message["type"])

    serving = asyncio.create_task(process({"type": "lifespan"}, receive, send))
    async with asyncio.timeout(10):
        while not lifecycle._WAITING:
            await asyncio.sleep(0)
    assert await ask(process, "/healthz/startup") == (503, {"started": False, "PostgreSQL": "connection refused"})
    assert await ask(process, "/healthz/ready", b"verbose") == (
        503,
        {"ready": False, "checks": {"lifecycle": "not started or already stopping"}},
    )
    database.is_there = True
    assert await states.get() == "lifespan.startup.complete"
    assert lifecycle._WAITING == {}
    assert await ask(process, "/healthz/startup") == (200, {"started": True})
    well = {"postgresql": "ok", "valkey-cache": "ok", "worker sweep": "ok"}
    assert await ask(process, "/healthz/ready", b"verbose") == (200, {"ready": True, "checks": well})
    database.is_there = False
    lacks = {**well, "postgresql": "connection refused"}
    assert await ask(process, "/healthz/ready", b"verbose") == (503, {"ready": False, "checks": lacks})
    _, state = await ask(process, "/debug/state")
    assert state["checks"] == lacks
    stop.set()
    await serving


async def _others() -> None:
    """Everything else on this loop has ended."""
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)


async def test_liveness_says_that_the_loop_does_not_turn() -> None:
    process, loop, until = ServiceProcess(None), asyncio.new_event_loop(), threading.Event()  # type: ignore[arg-type]
    process._loop = loop
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        assert await ask(process, "/healthz/live") == (200, {"alive": True})
        loop.call_soon_threadsafe(until.wait)
        assert await ask(process, "/healthz/live") == (503, {"alive": False, "loop": "does not turn"})
    finally:
        until.set()
        asyncio.run_coroutine_threadsafe(_others(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
