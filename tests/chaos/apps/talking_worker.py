"""Hosted by test_alerts.py: the Order service, with a worker that logs a line now and then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import structlog
from chassis.lifecycle import Composition, ServiceProcess
from order import main


async def _talk() -> None:
    while True:
        structlog.get_logger().info("still here")
        await asyncio.sleep(0.1)


@asynccontextmanager
async def _compose() -> AsyncIterator[Composition]:
    async with main.compose() as composition:
        yield replace(composition, workers={**composition.workers, "talking": _talk})


app = ServiceProcess(_compose)
ops = app.ops
