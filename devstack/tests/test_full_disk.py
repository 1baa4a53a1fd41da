"""What is left when there is no more room on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from chassis.valkey import PipelinedClient, ValkeyError
from devstack.layout import Layout
from devstack.options import Options
from devstack.secrets import Secrets, load_or_create
from mesh.topology import STATE

from devstack import health, services, sockets, valkey

# Enough for the file that Valkey begins with.
_ROOM_BYTES = 16_384


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    made = Layout(tmp_path)
    made.secrets.mkdir(mode=0o700)
    sockets.make_directory(made)
    yield made
    shutil.rmtree(made.sockets)


@contextlib.asynccontextmanager
async def state_server(layout: Layout, secrets: Secrets) -> AsyncIterator[None]:
    """The server that keeps sessions, as it is configured, whose files cannot grow."""
    process = await asyncio.create_subprocess_exec(
        *valkey.command(STATE, layout, secrets, Options()),
        stdout=asyncio.subprocess.DEVNULL,
        # Python ignores SIGXFSZ; so does what it starts, which then gets an error as on a full disk.
        restore_signals=False,
    )
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (_ROOM_BYTES, _ROOM_BYTES))
    try:
        async with asyncio.timeout(10):
            while not await health.valkey_answers(layout, STATE):
                await asyncio.sleep(0.02)
        yield
    finally:
        process.kill()
        await process.wait()


async def test_a_valkey_that_cannot_write_its_file_is_alive_and_goes_on_reading(layout: Layout) -> None:
    """It refuses PING: whoever took that for a hung server would kill it, and lose what it has not written."""
    secrets = load_or_create(layout.secrets)
    async with state_server(layout, secrets):
        client = PipelinedClient(services.valkey_url(layout, secrets))
        await client.set("session:one", b"x" * 2 * _ROOM_BYTES, 60)
        async with asyncio.timeout(10):
            while True:
                try:
                    await client.accepts_writes("session:")()
                except ValkeyError as error:
                    assert "MISCONF" in str(error)
                    break
        assert await health.valkey_answers(layout, STATE)
        await client.ping()
        assert await client.get("session:one") is not None
        await client.close()
