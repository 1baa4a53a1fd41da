"""What is shipped, and whether it works: `make test-delivery`, which has the programs for it. `make test` needs nothing but Python."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import engine as engines
import images as builds
import pytest
from engine import Engine, EngineUnavailable

collect_ignore_glob = [] if os.environ.get("DELIVERY") else ["test_*.py"]


@pytest.fixture(scope="session")
def canary() -> str:
    """What is in the secrets of builds, and may be in no image."""
    return f"canary-{secrets.token_hex(16)}"


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory, canary: str) -> Iterator[Engine]:
    """A Docker engine; a machine on which none starts skips what needs one, and CI does not take that for an answer."""
    given = builds.secrets(tmp_path_factory.mktemp("build-secrets"), canary)
    try:
        with engines.running(given) as made:
            yield made
    except EngineUnavailable as error:
        if os.environ.get("REQUIRE_PROGRAMS"):
            pytest.fail(f"REQUIRE_PROGRAMS is set and there is no engine: {error}")
        pytest.skip(f"NO DOCKER ENGINE, images and Compose are not tried: {error}")


@pytest.fixture(scope="session")
def images(engine: Engine) -> Engine:
    """The engine, once it has all images."""
    engines.build_all(engine)
    return engine
