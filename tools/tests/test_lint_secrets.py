"""Each form of a secret is found where it is added, and nothing of it is said."""

from __future__ import annotations

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
