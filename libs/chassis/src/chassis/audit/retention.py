"""The worker that keeps the audit trail bounded."""

from __future__ import annotations

import asyncio
import random

import structlog

from chassis.audit import trail
from chassis.database import Database
from chassis.errors import ServiceError

_EVERY_SECONDS = 3600.0
BATCH = 1000
# Between one batch and the next: what is old is in nobody's way.
_PAUSE_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class Retention:
    """Once an hour lets the database forget what is older than its own function says (`forget_audit`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Until cancelled; a failure is said, and the next hour tries again."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS * random.uniform(0.5, 1.0))
            try:
                if count := await self.forget():
                    _log.info("old audit records forgotten", count=count)
            except ServiceError as error:
                _log.warning("old audit records stay for now", error=str(error))

    async def forget(self) -> int:
        """Forget all that may be forgotten, in small batches; how many there were."""
        count = 0
        while True:
            async with self._database.connection() as connection:
                forgotten = await trail.forget(connection, BATCH)
            count += forgotten
            if forgotten < BATCH:
                return count
            await asyncio.sleep(_PAUSE_SECONDS)
