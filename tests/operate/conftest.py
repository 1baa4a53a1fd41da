"""One stack for what an operator does to all of it: passwords, backups, levels, the runbooks."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator

import pytest
from copies import Copy, make

from conftest import GENEROUS, People, Platform, backend, http_client, start_platform


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    data_dir = tmp_path_factory.mktemp("operate") / "stack"
    yield start_platform(data_dir, *GENEROUS)
    backend("reset", "--yes", "--data-dir", str(data_dir))


@pytest.fixture(scope="package")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A copy of the repository, with an environment, for whoever does a page of the documentation."""
    path = tmp_path_factory.mktemp("copies") / "copy"
    yield make(path)
    shutil.rmtree(path)


@pytest.fixture
async def people(stack: Platform) -> AsyncIterator[People]:
    async with http_client(stack.url) as http:
        yield People(http, stack)
