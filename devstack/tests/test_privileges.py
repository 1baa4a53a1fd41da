from __future__ import annotations

import os
import subprocess
from pathlib import Path

from devstack import privileges


def run_child(script: str, *paths: Path) -> str:
    return subprocess.run(
        ["/bin/sh", "-c", script],
        check=True,
        capture_output=True,
        encoding="utf-8",
        preexec_fn=privileges.child_setup(paths),
    ).stdout


def test_a_child_reaches_what_lies_below_a_private_directory_and_has_nothing_else(tmp_path: Path) -> None:
    """As root, a child is another user with one capability; otherwise it is simply us."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    program = private / "program"
    program.write_text("#!/bin/sh\necho reached\n", encoding="utf-8")
    program.chmod(0o755)
    # `test -x` is access(2), which is how PostgreSQL looks for its own programs.
    script = f'test -x "{program}" && "{program}" && id -u && grep -E "^Cap(Prm|Eff|Amb)" /proc/self/status'
    reached, uid, *capabilities = run_child(script, program).split("\n")[:-1]
    assert reached == "reached"
    if os.geteuid() == 0:
        assert uid != "0"
        assert [line.split()[1] for line in capabilities] == ["0000000000000002"] * 3
    else:
        assert uid == str(os.geteuid())


def test_a_child_that_needs_no_capability_gets_none() -> None:
    capabilities = run_child('grep -E "^Cap(Prm|Eff|Amb)" /proc/self/status', Path("/bin/sh"))
    if os.geteuid() == 0:
        assert {line.split()[1] for line in capabilities.splitlines()} == {"0000000000000000"}
