"""docs/tutorial.md is done as it stands, in a copy of the repository with an environment of its own."""

from __future__ import annotations

from copies import Copy
from devstack.layout import ROOT

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


def test_the_tutorial_ends_with_an_operation_that_answers(copy: Copy) -> None:
    copy.start_over()
    shown = copy.walk(TUTORIAL)
    assert "1 passed" in shown
    assert '{"available":true}' in shown
    assert '"status": 404' in shown
    assert "FAIL" not in shown
