"""A platform that something else than `backend up` runs: what tests know of it is in a file, which the variable PLATFORM names.

Tests that call it, and look into its databases, run as they stand. One that needs the files of a stack is skipped, and says so.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import asyncpg
import pytest
from devstack.layout import Layout
from redis.asyncio import Redis

from conftest import Platform


class _NoFiles(Layout):
    """Of a platform that keeps its logs, spans and secrets where no test sees them."""

    __slots__ = ()

    @property
    def logs(self) -> NoReturn:
        pytest.skip("needs the logs of a stack")

    @property
    def spans(self) -> NoReturn:
        pytest.skip("needs the spans of a stack")

    @property
    def secrets(self) -> NoReturn:
        pytest.skip("needs the secrets of a stack")


@dataclass(frozen=True)
class Elsewhere(Platform):
    """A platform as it is described: by URLs."""

    # With {database} for its name.
    database_url: str
    # By server.
    valkey_urls: Mapping[str, str]
    trace_key: str

    @property
    def traced(self) -> dict[str, str]:
        return {f"x-trace-{self.trace_key}": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}

    async def database(self, name: str) -> asyncpg.Connection:
        return await asyncpg.connect(self.database_url.replace("{database}", name))

    def valkey(self, user: str = "admin", server: str = "") -> Redis:
        if user != "admin":
            pytest.skip("needs the secrets of a stack")
        return Redis.from_url(self.valkey_urls[server or "valkey"], driver_info=None)

    def pid(self, name: str) -> int:
        pytest.skip(f"needs {name} to be a process of this machine's")


def described(file: Path) -> Platform:
    """The platform that a file describes."""
    said = json.loads(file.read_text(encoding="utf-8"))
    return Elsewhere(
        layout=_NoFiles(Path(said["directory"]), said["port_offset"]),
        status={"endpoints": said["endpoints"], "demo": said["accounts"]},
        database_url=said["database_url"],
        valkey_urls=said["valkey_urls"],
        trace_key=said["trace_key"],
    )
