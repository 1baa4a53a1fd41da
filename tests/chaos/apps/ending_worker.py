"""Hosted by test_alerts.py: the Order service, with a worker that ends as soon as it begins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from chassis.lifecycle import Composition, ServiceProcess
from order import main


async def _end() -> None:
    raise FileNotFoundError("what it needs is not there")


@asynccontextmanager
async def _compose() -> AsyncIterator[Composition]:
    async with main.compose() as composition:
        yield replace(composition, workers={**composition.workers, "ending": _end})


app = ServiceProcess(_compose)
ops = app.ops
