"""How each process of a stack is now, asked of itself, for `backend status`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from devstack import postgres, services
from devstack.layout import Layout
from devstack.secrets import Secrets

READY, NOT_READY, UNHEALTHY = "ready", "not ready", "unhealthy"


class Health:
    """Probes of one stack's processes.

    Args:
        layout: where it is.
        secrets: what PostgreSQL and Valkey are asked with.
        endpoints: the ops address of each service process (`order_ops`).
    """

    def __init__(self, layout: Layout, secrets: Secrets, endpoints: Mapping[str, str]) -> None:
        self._layout = layout
        self._secrets = secrets
        self._endpoints = endpoints

    async def is_ready(self, name: str) -> bool:
        """Whether it serves: a service also needs its database and Valkey for that."""
        return await self._ask(name, "ready")

    async def is_alive(self, name: str) -> bool:
        """Whether it answers at all; one that does not for long is helped by nothing but a new start."""
        return await self._ask(name, "live")

    async def now(self, name: str) -> str:
        """READY, NOT_READY or UNHEALTHY."""
        ready, alive = await asyncio.gather(self.is_ready(name), self.is_alive(name))
        return READY if ready else NOT_READY if alive else UNHEALTHY

    async def _ask(self, name: str, what: str) -> bool:
        if name == "postgres":
            return await postgres.accepts_connections(self._layout, self._secrets)
        if name.startswith("valkey"):
            return await services.valkey_answers(self._layout, self._secrets)
        return await services.answers_ok(f"{self._endpoints[f'{name}_ops']}/healthz/{what}")
