"""A copy of the repository with an environment of its own, in which pages of the documentation are done as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from devstack.layout import ROOT

from conftest import free_port_offset

_BLOCK = re.compile(r"^(?:[^\n]*`([\w./-]+)`[^\n]*:\n\n)?```(sh|diff|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Copy:
    """Where it is."""

    path: Path

    def walk(self, text: str, **environment: str) -> str:
        """Do a page: run its commands, apply its patches, write its files, each named in the line before; what it prints.

        Lines of a patch's context may have moved; they have to be there.
        """
        shown = ""
        for name, kind, block in _BLOCK.findall(text):
            if kind == "python":
                (self.path / name).write_text(block, encoding="utf-8")
            elif kind == "diff":
                # File by file: told to count for itself, git takes the next file's first line for a removed one.
                for patch in re.split(r"^(?=--- a/)", block, flags=re.MULTILINE)[1:]:
                    self._run(["git", "apply", "--recount", "-"], patch, environment)
            else:
                shown += self.run(block, **environment)
        return shown

    def run(self, script: str, **environment: str) -> str:
        """What a shell script prints; it succeeds."""
        return self._run(["bash", "-euo", "pipefail", "-c", script], None, environment)

    def refused(self, script: str) -> str:
        """What a shell script prints; it fails."""
        done = self._done(["bash", "-euo", "pipefail", "-c", script], None, {})
        assert done.returncode != 0, done.stdout
        return done.stdout + done.stderr

    def start_over(self) -> None:
        """As it was when it was made."""
        self.run("git reset --quiet --hard copied && git clean --quiet -fd && make bootstrap")

    def commit(self, message: str) -> None:
        """All that there is."""
        self.run(f"git add -A && git commit --quiet --message={message}")

    def _run(self, command: list[str], text: str | None, environment: dict[str, str]) -> str:
        done = self._done(command, text, environment)
        assert done.returncode == 0, f"{command[-1]}\n{text or ''}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _done(
        self, command: list[str], text: str | None, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        # Nothing of the environment that runs this test.
        of_the_run = ("PYTEST", "VIRTUAL_ENV", "PYTHON", "GIT_", "COVERAGE_")
        kept = {n: v for n, v in os.environ.items() if not n.startswith(of_the_run)}
        own = {
            "OFFSET": str(free_port_offset()),
            "BACKEND_DATA_DIR": str(self.path.parent / "stack"),
            **{
                f"GIT_{who}_{what}": "copy@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
            },
        }
        return subprocess.run(
            command, input=text, cwd=self.path, env={**kept, **own, **environment},
            capture_output=True, text=True, encoding="utf-8", check=False, timeout=1200,
        )  # fmt: skip


def make(path: Path) -> Copy:
    """Everything of this repository that is not ignored, committed, with an environment."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, path / name)
    if (ROOT / ".mypy_cache").exists():
        shutil.copytree(ROOT / ".mypy_cache", path / ".mypy_cache")
    copy = Copy(path)
    copy.run("git init --quiet && git add -A")
    copy.commit("copy")
    copy.run("git tag copied")
    copy.run("make bootstrap")
    return copy
