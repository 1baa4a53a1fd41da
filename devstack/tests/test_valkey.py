"""The Valkey servers' configuration, as a server reads it."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from devstack.layout import Layout
from devstack.options import Options
from devstack.secrets import load_or_create
from mesh.topology import STATE

from devstack import valkey


@pytest.mark.parametrize("name", ["Ada's", 'say "hello"', "back\\slash", "two\nlines", "50% of #1 $HOME", "Größe"])
def test_a_data_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    layout = Layout(tmp_path / name)
    layout.sockets.mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen(
        valkey.command(STATE, layout, load_or_create(layout.secrets), Options()), stdout=subprocess.PIPE
    )
    try:
        made = layout.data_dir / STATE / "appendonlydir"
        while server.poll() is None and not made.exists():
            time.sleep(0.02)
        assert server.poll() is None, server.communicate()[0].decode()
    finally:
        server.kill()
        server.communicate()
        shutil.rmtree(layout.sockets)
