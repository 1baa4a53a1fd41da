"""What a running stack needs now and then: logs kept short, certificates renewed, old signing keys removed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psutil
from mesh.topology import BROKER

from devstack.layout import Layout
from devstack.state import StackState

if TYPE_CHECKING:
    from mesh.certificates import Certificates

_LOG_LIMIT_BYTES = 50 * 1024 * 1024
_LOG_CHECK_SECONDS = 2.0
_STATE_CHECK_SECONDS = 1.0
_OWNER_CHECK_SECONDS = 0.5
_LEAST_RENEWAL_SECONDS = 0.5
_RENEWAL_RETRY_SECONDS = 5.0
_RETIREMENT_CHECK_SECONDS = 30.0
# Twice within what everybody is given to read a changed certificate (`certificates.SETTLE_SECONDS`).
_BROKER_CHECK_SECONDS = 0.5

# How the supervisor says something: who, what, and at which level.
Say = Callable[[str, str, str], None]


async def bound_logs(layout: Layout) -> None:
    """Keep each log below its limit and one older part of it beside; lines of the instant may be lost."""
    while True:
        for path in layout.logs.glob("*.log"):
            # What a full disk does not let be copied now is tried again.
            with contextlib.suppress(OSError):
                if path.stat().st_size > _LOG_LIMIT_BYTES:
                    await asyncio.to_thread(shutil.copyfile, path, path.with_suffix(".log.1"))
                    # The processes append, so what they write next starts at the new end.
                    os.truncate(path, 0)
        await asyncio.sleep(_LOG_CHECK_SECONDS)


async def keep_state(state: StackState, layout: Layout) -> None:
    """Write down what could not be written when it came to be so."""
    while True:
        await asyncio.sleep(_STATE_CHECK_SECONDS)
        if not state.is_written(layout):
            state.write_if_possible(layout)


async def until_gone(pid: int, stopping: asyncio.Event) -> None:
    """Set `stopping` once a process is gone, however it ended: a stack ends with whom it belongs to."""
    try:
        owner = psutil.Process(pid)
        while owner.is_running() and owner.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(_OWNER_CHECK_SECONDS)
    except psutil.NoSuchProcess:
        pass
    stopping.set()


async def renew_certificates(layout: Layout, certificates: Certificates, say: Say) -> None:
    """At half the life of each; a failure is said and tried again, for there is half a life left."""
    from devstack import audit

    def renew() -> None:
        with audit.replacing_certificates(layout, certificates, audit.SUPERVISOR):
            certificates.ensure()

    while True:
        try:
            due = (certificates.next_renewal() - datetime.now(UTC)).total_seconds()
            await asyncio.sleep(max(_LEAST_RENEWAL_SECONDS, due))
            await asyncio.to_thread(renew)
        except Exception as error:
            say("certs", f"could not be renewed: {error}", "warning")
            await asyncio.sleep(_RENEWAL_RETRY_SECONDS)


async def renew_broker(layout: Layout, state: StackState, say: Say) -> None:
    """Have the broker read its certificate, and the roots that it trusts, whenever they were replaced."""
    current = layout.certificates / BROKER / "..data"
    seen = current.readlink()
    while True:
        await asyncio.sleep(_BROKER_CHECK_SECONDS)
        with contextlib.suppress(OSError):
            if (found := current.readlink()) == seen:
                continue
            pid = next((entry.pid for entry in state.processes if entry.name == BROKER), None)
            if pid is not None:
                os.kill(pid, signal.SIGHUP)
                say(BROKER, "reads its certificate, which was renewed", "info")
            seen = found


async def retire_keys(layout: Layout, say: Say) -> None:
    """Soon after the last token of each has expired."""
    from devstack import audit, keys

    while True:
        await asyncio.sleep(_RETIREMENT_CHECK_SECONDS)
        try:
            for kid in await asyncio.to_thread(keys.retire, layout, time.time()):
                audit.tell(layout, "key.retired", f"key/{kid}", audit.SUPERVISOR)
                say("keys", f"{kid} has verified its last token and is removed", "info")
        except Exception as error:
            say("keys", f"could not be retired: {error}", "warning")
