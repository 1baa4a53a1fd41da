"""One stack for faults that are caused for real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from inside import until_ready

from conftest import GENEROUS, People, Platform, backend, http_client, start_platform

# Longer than any test here pauses a process, but the one of hung processes.
LIVENESS_SECONDS = 12


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    # A path with a space, below a directory only its owner may enter.
    data_dir = tmp_path_factory.mktemp("private") / "a stack"
    data_dir.parent.chmod(0o700)
    yield start_platform(data_dir, *GENEROUS, "--liveness-seconds", str(LIVENESS_SECONDS))
    backend("reset", "--yes", "--data-dir", str(data_dir))


@pytest.fixture
async def people(stack: Platform) -> AsyncIterator[People]:
    await until_ready(stack)
    async with http_client(stack.url) as http:
        yield People(http, stack)
