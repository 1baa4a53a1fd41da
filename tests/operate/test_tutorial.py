"""docs/tutorial.md is done as it stands, in a copy of the repository with an environment of its own."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from devstack.layout import ROOT

from conftest import free_port_offset

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


def test_the_tutorial_ends_with_an_operation_that_answers(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", ROOT, copy], check=True, timeout=60)
    environment = {
        # Nothing of the environment that runs this test.
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST", "VIRTUAL_ENV", "PYTHON"))
        },
        "OFFSET": str(free_port_offset()),
        "BACKEND_DATA_DIR": str(tmp_path / "stack"),
    }
    shown = ""
    for kind, text in re.findall(r"^```(sh|diff|python)\n(.*?)^```$", TUTORIAL, re.DOTALL | re.MULTILINE):
        if kind == "python":
            (copy / "tests/e2e/test_availability.py").write_text(text, encoding="utf-8")
            continue
        command = ["git", "apply", "--recount", "-"] if kind == "diff" else ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(
            command, input=text if kind == "diff" else None, cwd=copy, env=environment,
            capture_output=True, encoding="utf-8", check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, text + done.stdout + done.stderr
        shown += done.stdout
    assert "1 passed" in shown
    assert '{"available":true}' in shown
    assert '"status": 404' in shown
    assert "FAIL" not in shown
