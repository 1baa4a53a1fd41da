"""`make setup`: what a commit is looked at for, by the real git in a clone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
HOOKS = {
    hook["id"]: hook
    for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    for hook in repository["hooks"]
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make setup` leaves it, with the environment of this one."""
    clone = tmp_path_factory.mktemp("hooks") / "clone"
    subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(clone)], check=True)
    (clone / ".venv").symlink_to(Path(sys.executable).parent.parent)
    for name in (".pre-commit-config.yaml", "tools/lint_secrets.py", "tools/lint_commit_message.py"):
        (clone / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    # `.venv` is a link here, which `.venv/` does not mean.
    (clone / ".git/info/exclude").write_text(".venv\n", encoding="utf-8")
    git(clone, "add", ".", check=True)
    # Nobody looks at this one: hooks are installed next.
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "test: as it is here", check=True)
    prek = [str(Path(sys.executable).parent / "prek"), "install", "--quiet"]
    subprocess.run([*prek, "--hook-type", "pre-commit", "--hook-type", "commit-msg"], cwd=clone, check=True)
    return clone


def git(clone: Path, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    someone = {f"GIT_{who}_{what}": "a@shop.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    # Types of a clone are checked from nothing, which takes half a minute.
    variables = {**os.environ, **someone, "SKIP": "types", "PREK_HOME": str(clone.parent / "prek")}
    return subprocess.run(
        ["git", *arguments], cwd=clone, env=variables, check=check, capture_output=True, encoding="utf-8"
    )


def commit(clone: Path, message: str, **files: str) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        path = clone / name.replace("__", "/").replace("_py", ".py").replace("_md", ".md")
        path.write_text(text, encoding="utf-8")
    git(clone, "add", ".", check=True)
    done = git(clone, "commit", "--message", message)
    if done.returncode != 0:
        git(clone, "reset", "--quiet", "--hard", check=True)
    return done


def test_a_good_commit_is_made(clone: Path) -> None:
    done = commit(clone, "docs: a page", page_md="A page.\n")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_message_without_a_type_is_refused(clone: Path) -> None:
    done = commit(clone, "a page", page_md="Another page.\n")
    assert done.returncode != 0
    assert "is not `type(scope)!: " in done.stdout + done.stderr


def test_a_secret_is_refused(clone: Path) -> None:
    done = commit(clone, "docs: a page", page_md="key: " + "AKIA" + "ABCDEFGHIJKLMNOP\n")
    assert done.returncode != 0
    assert "page.md:1: an AWS access key" in done.stdout + done.stderr


def test_code_out_of_form_and_without_an_encoding_is_refused(clone: Path) -> None:
    done = commit(clone, "feat: a tool", tools__new_py='"""A tool."""\nimport sys\nopen( "x" )\n')
    said = done.stdout + done.stderr
    assert done.returncode != 0
    for hook in ("format", "ruff", "encodings"):
        assert f"hook id: {hook}" in said, said


def test_programs_are_those_of_the_environment() -> None:
    for hook in HOOKS.values():
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")
        assert (Path(sys.executable).parent / hook["entry"].split()[0].removeprefix(".venv/bin/")).exists()
