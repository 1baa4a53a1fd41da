"""The form of a commit's message."""

from __future__ import annotations

import pytest
from lint_commit_message import faults


@pytest.mark.parametrize(
    "message",
    [
        "feat: what is new",
        "fix(order): what was wrong\n\nWhy.\n",
        "feat(api)!: what breaks\n\nBREAKING CHANGE: how",
        "docs(docs, adr): x\n# Please enter the commit message\n# ...\n",
        "\nfix: after an empty line",
        "Merge branch 'x'",
        'Revert "feat: x"',
        "fixup! feat: x",
        "fix: x\n\n# ------------------------ >8 ------------------------\ndiff\nnothing of this counts.",
    ],
)
def test_it_is_taken(message: str) -> None:
    assert faults(message) == []


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("", "it says nothing"),
        ("# only a comment\n", "it says nothing"),
        ("add a thing", "is not `type(scope)!: "),
        ("feature: x", "is not `type(scope)!: "),
        ("feat:x", "is not `type(scope)!: "),
        ("feat(): x", "is not `type(scope)!: "),
        ("fix: x.", "without a full stop"),
        ("fix: x\nmore", "the second line is empty"),
    ],
)
def test_it_is_refused(message: str, said: str) -> None:
    assert said in "\n".join(faults(message))
