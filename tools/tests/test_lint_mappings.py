"""Which fields a message is made without, and nobody said so."""

from __future__ import annotations

from pathlib import Path

import pytest
from lint_mappings import ROOT, problems

IMPORTS = """
from contracts.common.v1 import money_pb2
from contracts.common.v1.money_pb2 import Money
from contracts.bff.v1 import models
"""


@pytest.mark.parametrize(
    ("made", "forgotten"),
    [
        ("money_pb2.Money(amount_minor=1, currency='EUR')", []),
        ("money_pb2.Money(amount_minor=1)", ["Money is made without currency"]),
        ("Money(currency='EUR')", ["Money is made without amount_minor"]),
        ("models.Money(amount_minor=1)", ["Money is made without currency"]),
        ("[money_pb2.Money(currency=c) for c in ()]", ["Money is made without amount_minor"]),
        ("# leaves out: currency\nMoney(amount_minor=1)", []),
        ("Money(  # leaves out: currency\n    amount_minor=1)", []),
        ("# leaves out: amount_minor\nMoney(amount_minor=1)",
         ["Money is made without currency", "Money does not leave out amount_minor"]),
        ("# leaves out: currency, colour\nMoney(amount_minor=1)", ["Money does not leave out colour"]),
        ("Money()", []),
        ("dict(amount_minor=1)", []),
    ],
)  # fmt: skip
def test_what_is_forgotten_is_found(tmp_path: Path, made: str, forgotten: list[str]) -> None:
    module = tmp_path / "module.py"
    module.write_text(f"{IMPORTS}\n{made}\n", encoding="utf-8")
    assert [problem.split(": ", 1)[1] for problem in problems(module)] == forgotten


def test_ours_forget_nothing() -> None:
    paths = list(ROOT.glob("services/*/src/**/*.py"))
    assert len(paths) > 20
    assert [problem for path in paths for problem in problems(path)] == []
