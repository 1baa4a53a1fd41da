"""Each form of a secret is found where it is added, and nothing of it is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lint_secrets
import pytest

# Put together here, so that no line of this file has one.
SECRETS = {
    "a private key": "-----BEGIN EC " + "PRIVATE KEY-----" + r"\nMHcCAQEE",
    "an AWS access key": "AKIA" + "ABCDEFGHIJKLMNOP",
    "a GitHub token": "ghp_" + "a1" * 18,
    "a GitLab token": "glpat-" + "a1" * 10,
    "a Slack token": "xoxb-" + "1234567890-abc",
    "a Google API key": "AIza" + "a1" * 17 + "b",
    "a Stripe key": "sk_live_" + "a1" * 12,
    "an npm token": "npm_" + "a1" * 18,
    "a PyPI token": "pypi-" + "a1" * 30,
    "a signed token": "eyJ" + "a" * 20 + ".eyJ" + "b" * 20 + "." + "c" * 43,
    "a password in a URL": "postgresql://me:" + "correcthorsebattery" + "@db.shop.example/x",
}


def patch(*lines: str) -> str:
    head = "diff --git a/x.py b/x.py\nindex 1..2 100644\n--- a/x.py\n+++ b/x.py\n@@ -3,0 +4,2 @@ def f():"
    return "\n".join([head, *lines])


@pytest.mark.parametrize("what", lint_secrets.FORMS)
def test_a_secret_that_is_added_is_found_by_its_place(what: str) -> None:
    found = lint_secrets.problems(lint_secrets.added(patch("+fine", f"+KEY = '{SECRETS[what]}'")))
    assert found == [f"x.py:5: {what}"]
    assert SECRETS[what] not in "".join(found)


def test_what_is_removed_or_said_to_be_none_is_let_through() -> None:
    secret = SECRETS["a GitHub token"]
    assert lint_secrets.problems(lint_secrets.added(patch(f"-KEY = '{secret}'"))) == []
    assert lint_secrets.problems(lint_secrets.added(patch(f"+KEY = '{secret}'  # not a secret"))) == []


def test_a_line_that_begins_like_a_header_is_a_line() -> None:
    secret = SECRETS["a GitHub token"]
    assert lint_secrets.problems(lint_secrets.added(patch(f"+++ {secret}"))) == ["x.py:4: a GitHub token"]


@pytest.mark.parametrize(
    "line",
    [
        "postgresql://postgres@db.shop.example/x",
        "unix://{user}:{password}@host.example",
        "https://shop.example:8143/a@b.example",
        "-----BEGIN PUBLIC KEY-----",
        "sha256:" + "a1" * 32,
    ],
)
def test_what_is_no_secret_is_let_through(line: str) -> None:
    assert lint_secrets.problems(iter([("x", 1, line)])) == []


def test_there_is_none_in_this_repository() -> None:
    assert lint_secrets.problems(lint_secrets.every_line()) == []


def test_what_was_removed_again_is_found_in_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@shop.example", *arguments], cwd=tmp_path, check=True
        )

    def history() -> str | None:
        monkeypatch.setattr(lint_secrets, "ROOT", tmp_path)
        monkeypatch.setattr(sys, "argv", ["lint_secrets.py", "--history"])
        try:
            lint_secrets.main()
        except SystemExit as end:
            return str(end.code)
        return None

    git("init", "--quiet")
    for content in ("fine\n", f"{SECRETS['a GitHub token']}\n", "gone\n"):
        (tmp_path / "x.py").write_text(content, encoding="utf-8")
        git("add", ".")
        git("commit", "--quiet", "--message", "feat: x")
    assert history() == "x.py:1: a GitHub token"
    clone = tmp_path / "clone"
    git("clone", "--quiet", "--depth", "1", f"file://{tmp_path}", str(clone))
    tmp_path = clone
    assert "cut off" in (history() or "")
