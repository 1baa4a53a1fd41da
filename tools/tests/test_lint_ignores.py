"""Which of ruff's rules are ignored and would find nothing."""

from __future__ import annotations

from pathlib import Path

from lint_ignores import hits, vain


def test_a_rule_that_finds_nothing_is_not_ignored(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "module.py").write_text('print("x")\n', encoding="utf-8")
    (tmp_path / "tests" / "test_module.py").write_text("assert 1\n", encoding="utf-8")
    lint: dict[str, object] = {
        "select": ["ALL"],
        "ignore": ["T201", "S105", "D"],
        "per-file-ignores": {"**/tests/**": ["S101", "T201"], "module.py": ["T2", "S101"]},
    }
    found = hits({"target-version": "py311", "lint": lint}, tmp_path)
    assert vain(lint, found, tmp_path) == ["S105 in **", "T201 in **/tests/**", "S101 in module.py"]
