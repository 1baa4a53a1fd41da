"""The README's curl lines work exactly as they stand there."""

from __future__ import annotations

import os
import re
import subprocess

from contracts.bff.v1.operations import OPERATIONS
from devstack.layout import ROOT

from conftest import Platform

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_of_the_readme_places_and_pays_an_order(platform: Platform) -> None:
    match = re.search(r"<!-- example -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert match is not None
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", match[1]],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
        env={**os.environ, "API": platform.url},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "idempotency-replayed: true" in done.stdout.lower()
    # Readable: indented, a member a line.
    for line in ('    "status": "paid",', '    "display_name": "Ada",', '            "name": "'):
        assert f"\n{line}" in done.stdout, line
    assert max(map(len, done.stdout.splitlines())) < 200


def test_the_readme_counts_the_operations_and_names_files_that_exist() -> None:
    assert f"all {len(OPERATIONS)} operations" in README
    for path in re.findall(r"`((?:tests|docs|libs|tools|services|deploy)/[\w./-]+?)(?:::\w+)?`", README):
        assert (ROOT / path).exists(), path
    for link in re.findall(r"\]\((docs/[^)]+)\)", README):
        assert (ROOT / link).exists(), link
