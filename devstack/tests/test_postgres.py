from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from devstack.failures import StartupError
from devstack.layout import Layout
from devstack.secrets import load_or_create

from devstack import postgres


async def test_a_server_that_says_that_it_is_starting_is_not_asked_and_has_nothing_to_log(tmp_path: Path) -> None:
    """After a crash it reads its log for as long as that takes, and writes an error of each who comes meanwhile."""
    layout, asked = Layout(tmp_path), 0

    async def count(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    directory, sockets = postgres.directory(layout), postgres.socket_directory(layout)
    directory.mkdir()
    sockets.mkdir(parents=True)
    async with await asyncio.start_unix_server(count, sockets / ".s.PGSQL.5432"):
        for status, times in (("starting", 0), ("ready   ", 1), ("stopping", 2)):
            lines = ["4711", str(directory), "1795714979", "5432", str(sockets), "", "  1234  5", status]
            (directory / "postmaster.pid").write_text("\n".join(lines) + "\n", encoding="utf-8")
            assert not await postgres.accepts_connections(layout)
            assert asked == times
    shutil.rmtree(layout.sockets)


@pytest.mark.parametrize("letter", ['"', "$", "`"])
async def test_a_clone_where_initdb_cannot_call_the_server_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, letter: str
) -> None:
    monkeypatch.setattr(postgres, "BINARIES", tmp_path / f"a{letter}clone" / "bin")
    with pytest.raises(StartupError, match="What to do: move the clone"):
        await postgres.initialize(Layout(tmp_path / "data"), load_or_create(tmp_path / "secrets"))
    assert not postgres.directory(Layout(tmp_path / "data")).exists()
