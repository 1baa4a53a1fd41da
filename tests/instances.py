"""Room for the stacks of a run: each Envoy watches its certificates, and Linux lets a user watch little (docs/network.md).

A pytest plugin. Four stacks are up at once in a whole run, and a test that starts a fifth would be refused on a machine as it comes.
Who may, raises the limit for as long as the run lasts; who may not is told by the stack that finds no room.
"""

from __future__ import annotations

from pathlib import Path

import pytest

_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
_WANTED = 512


def pytest_configure(config: pytest.Config) -> None:
    """In the process that reports, before it starts workers."""
    if hasattr(config, "workerinput") or not _LIMIT.exists():
        return
    before = _LIMIT.read_text(encoding="ascii").strip()
    if int(before) >= _WANTED:
        return
    try:
        _LIMIT.write_text(str(_WANTED), encoding="ascii")
    except OSError:
        return

    def put_back() -> None:
        _LIMIT.write_text(before, encoding="ascii")

    config.add_cleanup(put_back)
