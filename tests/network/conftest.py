"""One stack for the network tests: real limits, two order replicas, certificates that are renewed all the time."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from conftest import People, Platform, backend, http_client, start_platform

# The Valkeys can be filled in a second (test_memory.py).
_LITTLE_MEMORY = ("--valkey-memory-mib", "24", "--cache-memory-mib", "16")

# What a test has paused is paused until the test is done with it, however busy the machine: hung processes are killed
# in devstack/tests and tests/chaos.
_PATIENCE = ("--liveness-seconds", "3600")


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    data_dir = tmp_path_factory.mktemp("network") / secrets.token_hex(3)
    yield start_platform(data_dir, "--replicas", "order=2", "--certificate-seconds", "60", *_LITTLE_MEMORY, *_PATIENCE)
    backend("reset", "--yes", "--data-dir", str(data_dir))


@pytest.fixture
async def people(stack: Platform) -> AsyncIterator[People]:
    async with http_client(stack.url) as http:
        yield People(http, stack)
