"""What is shipped, and whether it works: `make test-delivery`, which has the programs for it. `make test` needs nothing but Python."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import engine as engines
import pip_settings
import pytest
from engine import Engine, EngineUnavailable

collect_ignore_glob = [] if os.environ.get("DELIVERY") else ["test_*.py"]
# Of pip's settings, those that say where packages are had from; directories of this machine are not in a build.
_INDEX = ("index-url", "extra-index-url", "proxy", "trusted-host", "default-timeout")


@pytest.fixture(scope="session")
def canary() -> str:
    """What is in the secrets of builds, and may be in no image."""
    return f"canary-{secrets.token_hex(16)}"


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory, canary: str) -> Iterator[Engine]:
    """A Docker engine; a machine on which none starts skips what needs one, and CI does not take that for an answer."""
    directory = tmp_path_factory.mktemp("build-secrets")
    found = pip_settings.read(sys.executable)
    said = [f"{name} = {found[name]}" for name in _INDEX if name in found and "file:" not in found[name]]
    given = {"pip": directory / "pip.conf"}
    given["pip"].write_text("\n".join([f"# {canary}", "[global]", *said, ""]), encoding="utf-8")
    if (authority := Path(found.get("cert", ""))).is_file():
        given["ca"] = directory / "ca.pem"
        given["ca"].write_text(f"# {canary}\n" + authority.read_text(encoding="utf-8"), encoding="utf-8")
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
    engines.images(engine)
    return engine
