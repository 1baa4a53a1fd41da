"""The life of a service process: open everything, become ready, serve, drain, close everything.

A service's `main.py` gives `ServiceProcess` its composition, an async context manager that builds and wires all
objects and yields the application. The process object is the ASGI application for traffic; `ops` is a second one
for the ops listener, which runs on an event loop of its own and so can tell that the main one hangs.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import os
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field

import msgspec
import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis import envoy_admin, host
from chassis.admission import Admission
from chassis.debugging.endpoints import Answer, Debugging
from chassis.debugging.stacks import Traffic
from chassis.log_level import LogLevel
from chassis.metrics import process as of_process
from chassis.metrics.exposition import exposition, wants_open_metrics
from chassis.metrics.families import FAMILIES, Reading
from chassis.tracing.process import Tracing
from chassis.workers import Work, Workers

Check = Callable[[], Awaitable[object]]

_CHECK_SECONDS = 2.0
# How long a start tries to reach what a service cannot do without, each.
STARTUP_PATIENCE_SECONDS = 20.0
# What the start waits for, and why it still does; the startup probe tells it.
_WAITING: dict[str, str] = {}

_LAG = Reading(
    "backend_event_loop_lag_seconds", "Time that work waits in the event loop, measured when it is asked for"
)
_DEGRADED = Reading("backend_degraded", "1 for what does not work, or is out of memory", "check")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Composition:
    """A wired service: its application, the lanes of its calls, what it is ready with, and what it is ready without.

    A failing one of `details` is told by the readiness probe and by the metrics, and takes nobody out: it would take
    every replica out, with all that still works.
    """

    application: ASGIApp
    admission: Admission
    readiness: Mapping[str, Check] = field(default_factory=dict)
    details: Mapping[str, Check] = field(default_factory=dict)
    # What it does of its own accord while it serves; one that has ended is told like a failing detail.
    workers: Mapping[str, Work] = field(default_factory=dict)
    # Records its requests and sends what is kept.
    tracing: Tracing = field(default_factory=lambda: Tracing(None))


class ServiceProcess:
    """One service in one process; see the module's description."""

    def __init__(self, compose: Callable[[], AbstractAsyncContextManager[Composition]]) -> None:
        self._compose = compose
        self._composition: Composition | None = None
        self._workers = Workers({})
        self._loop: asyncio.AbstractEventLoop | None = None
        # The loop and its thread, as debugging looks at them.
        self.traffic: Traffic | None = None
        self.ops: ASGIApp = OpsApplication(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3: lifespan and traffic."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self._composition is None:
            raise RuntimeError("traffic arrived outside of the application's lifespan")
        else:
            await self._composition.application(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with (
                self._compose() as composition,
                Workers(composition.workers) as workers,
                AsyncExitStack() as stack,
            ):
                stack.enter_context(composition.tracing)
                self._loop = asyncio.get_running_loop()
                self.traffic = Traffic.here()
                host.accept_late_answers(self._loop)
                self._composition, self._workers = composition, workers
                of_process.begin()
                _tune_garbage_collector()
                _log.info("started")
                await send({"type": "lifespan.startup.complete"})
                await receive()
                self._composition = None
        except Exception as error:
            if self._loop is not None:
                _log.exception("shutdown failed")
                await send({"type": "lifespan.shutdown.failed", "message": str(error)})
            else:
                _log.error("startup failed", error=str(error), stack=traceback.format_exc())
                await send({"type": "lifespan.startup.failed", "message": str(error)})
        else:
            _log.info("stopped")
            await send({"type": "lifespan.shutdown.complete"})

    async def failures(self) -> dict[str, str]:
        """What keeps this process from being ready, by check; empty when it is ready. Called from the ops loop."""
        if self._composition is None:
            return {"lifecycle": "not started or already stopping"}
        return await self._failing(self._composition.readiness)

    async def degradations(self) -> dict[str, str]:
        """What works less well although this process is ready, by check. Called from the ops loop."""
        if self._composition is None:
            return {}
        return {**await self._failing(self._composition.details), **self._workers.ended()}

    async def checks(self) -> tuple[bool, dict[str, str]]:
        """Whether it is ready, and every check and worker with what it found: "ok", or why not. Called from the ops loop."""
        failures, degradations = await self.failures(), await self.degradations()
        composition = self._composition
        if composition is None:
            return False, failures
        names = (*composition.readiness, *composition.details, *(f"worker {name}" for name in composition.workers))
        return not failures, {**dict.fromkeys(names, "ok"), **degradations, **failures}

    async def _failing(self, checks: Mapping[str, Check]) -> dict[str, str]:
        loop = self._loop
        if loop is None:
            return {"lifecycle": "not started"}
        found = {}
        for name, check in checks.items():
            future = asyncio.run_coroutine_threadsafe(_bounded(check), loop)
            try:
                await asyncio.wait_for(asyncio.wrap_future(future), _CHECK_SECONDS + 0.5)
            except Exception as error:
                future.cancel()
                found[name] = str(error) or type(error).__name__
        return found

    async def is_alive(self) -> bool:
        """Whether the main event loop still turns. Called from the ops loop."""
        return await self._lag() is not None

    async def _lag(self) -> float | None:
        """Seconds that work waits in the main event loop; None when it does not turn."""
        if self._loop is None:
            return 0.0
        began = time.monotonic()
        turned = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop)
        try:
            await asyncio.wait_for(asyncio.wrap_future(turned), _CHECK_SECONDS)
        except TimeoutError:
            return None
        return time.monotonic() - began

    async def measure(self) -> None:
        """Look at what nobody counts as it happens: the loop's lag, and what fails. Called from the ops loop."""
        lag = await self._lag()
        _LAG.tell(_CHECK_SECONDS if lag is None else lag)
        if self._composition is None:
            return
        names = {*self._composition.readiness, *self._composition.details}
        failing = {**await self.degradations(), **await self.failures()}
        for name in names:
            _DEGRADED.tell(name in failing, name)

    @property
    def started(self) -> bool:
        """Whether everything has been opened."""
        return self._composition is not None


def _tune_garbage_collector() -> None:
    # What start-up made lives as long as the process; a request makes few cycles and much short-lived garbage.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


class OpsApplication:
    """Probes, metrics, the log level and what debugging needs, answered from an event loop apart from the traffic's."""

    def __init__(self, process: ServiceProcess) -> None:
        self._process = process
        self._log_level = LogLevel()
        self._debugging = Debugging()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3, HTTP only."""
        status: int
        body: Mapping[str, object]
        path: str = scope["path"]
        query = scope.get("query_string", b"").decode("latin-1")
        match path:
            case "/healthz/startup":
                started = self._process.started
                status, body = (200, {"started": True}) if started else (503, {"started": False, **_WAITING})
            case "/healthz/live":
                alive = await self._process.is_alive()
                status, body = (200, {"alive": True}) if alive else (503, {"alive": False, "loop": "does not turn"})
            case "/healthz/ready" if query == "verbose":
                ready, checks = await self._process.checks()
                status, body = 200 if ready else 503, {"ready": ready, "checks": checks}
            case "/healthz/ready":
                if failures := await self._process.failures():
                    status, body = 503, {"ready": False, **failures}
                else:
                    status, body = 200, {"ready": True, **await self._process.degradations()}
            case "/metrics":
                await self._process.measure()
                media_type, text = await _metrics(dict(scope.get("headers", ())).get(b"accept", b"").decode("latin-1"))
                await _answer(send, 200, media_type.encode(), text.encode())
                return
            case "/log-level" if scope["method"] == "PUT":
                try:
                    status, body = 200, self._log_level.change(await _body(receive))
                except msgspec.DecodeError as error:
                    status, body = 400, {"error": str(error)}
            case "/log-level":
                status, body = 200, self._log_level.state()
            case _:
                if path.startswith("/debug/") and (found := await self._debug(path.removeprefix("/debug/"), query)):
                    code, media, told = found
                    await _answer(send, code, media.encode(), told)
                    return
                paths = ["/healthz/startup", "/healthz/live", "/healthz/ready", "/metrics", "/log-level"]
                status, body = 404, {"paths": paths}
        await _answer(send, status, b"application/json", msgspec.json.encode(body))

    async def _debug(self, path: str, query: str) -> Answer | None:
        checks = (await self._process.checks())[1] if path == "state" else None
        return await self._debugging.answer(path, query, self._process.traffic, checks)


async def _metrics(accept: str) -> tuple[str, str]:
    """The media type and the text, of what an `Accept` header takes."""
    return exposition(FAMILIES.values(), await _envoys(), open_metrics=wants_open_metrics(accept))


async def _envoys() -> str:
    """What the Envoy around us counts; nothing where there is none."""
    admin = os.environ.get(envoy_admin.ADMIN_SOCKET)
    if admin is None:
        return ""
    try:
        return (await asyncio.to_thread(envoy_admin.ask, admin, "/stats/prometheus")).decode()
    except (OSError, http.client.HTTPException) as error:
        # Ours are told all the same; that Envoy's are missing is what whoever watches them will see.
        _log.warning("Envoy's admin interface does not answer", error=str(error))
        return ""


async def _body(receive: Receive) -> bytes:
    """A request's body; from nobody but us, through an Envoy that bounds it."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _answer(send: Send, status: int, media_type: bytes, body: bytes) -> None:
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _bounded(check: Check) -> None:
    async with asyncio.timeout(_CHECK_SECONDS):
        await check()


async def patiently(what: str, attempt: Callable[[], Awaitable[object]]) -> None:
    """Try `attempt` again for up to 20 s: at start, a backing service may come up after us.

    Raises:
        OSError: the last failure, naming `what`.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + STARTUP_PATIENCE_SECONDS
    while True:
        try:
            await attempt()
        except Exception as error:
            if loop.time() > give_up:
                raise OSError(f"{what} cannot be reached: {error}") from error
            _WAITING[what] = str(error) or type(error).__name__
            await asyncio.sleep(0.5)
        else:
            _WAITING.pop(what, None)
            return
