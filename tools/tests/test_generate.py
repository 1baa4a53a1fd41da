"""What is generated can be imported, or nothing is written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import generate
import generate_blocks
import pytest


def test_every_module_that_could_not_be_imported_is_named(tmp_path: Path) -> None:
    files = {
        generate.CONTRACTS / "__init__.py": "",
        generate.CONTRACTS / "fine.py": "ANSWER = 42\n",
        generate.CONTRACTS / "lost.py": "from stock_alerts.v1 import stock_alerts_pb2\n",
        Path("services/order/src/order/repository/queries.py"): "def broken(:\n",
    }
    generate.write(files, tmp_path)
    with pytest.raises(generate.GenerationError) as caught:
        generate.with_what_imports_them(files, tmp_path)
    assert "contracts.lost: ModuleNotFoundError: No module named 'stock_alerts'" in str(caught.value)
    assert "queries.py: SyntaxError" in str(caught.value)
    assert "contracts.fine" not in str(caught.value)


def test_what_a_program_says_is_part_of_the_fault() -> None:
    with pytest.raises(generate.GenerationError, match=r"api/proto:\nno such file"):
        generate.run("api/proto", [sys.executable, "-c", "import sys; sys.exit('no such file')"])


def test_everything_that_cannot_be_generated_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(what: str) -> generate.Files:
        raise generate.GenerationError(f"{what}: wrong")

    monkeypatch.setattr(generate, "protobuf", lambda: fails("api/proto"))
    monkeypatch.setattr(generate, "sql", lambda: fails("services/order/db"))
    with pytest.raises(generate.GenerationError, match=r"api/proto: wrong\nservices/order/db: wrong"):
        generate.generated()


def test_a_page_without_its_marks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_blocks, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.mypy]\n", encoding="utf-8")
    with pytest.raises(generate_blocks.BlockError, match=r"pyproject.toml has 0 blocks '# generated: mypy_path"):
        generate_blocks.current()


def test_what_is_right_already_is_not_written_again(tmp_path: Path) -> None:
    files = {Path("a.txt"): "one", Path("b/c.txt"): "two"}
    generate.write(files, tmp_path)
    before = (tmp_path / "a.txt").stat().st_mtime_ns
    generate.write({**files, Path("b/c.txt"): "three"}, tmp_path)
    assert (tmp_path / "a.txt").stat().st_mtime_ns == before
    assert (tmp_path / "b/c.txt").read_text(encoding="utf-8") == "three"


def test_nothing_is_left_where_nothing_is_generated_any_more(tmp_path: Path) -> None:
    files = {
        Path("a/v1/gone.py"): "",
        Path("a/v1/__pycache__/gone.pyc"): "",
        Path("b/gone.py"): "",
        Path("b/here.py"): "",
    }
    generate.write(files, tmp_path)
    generate.remove([Path("a/v1/gone.py"), Path("b/gone.py")], tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["b", "b/here.py"]


@pytest.mark.parametrize(
    "text", ["paths:\n  get:\n    operationId x\n    tags: [a]\n", "roles: [admin\n", "a: *unknown\n"]
)
def test_what_is_no_yaml_is_named_with_its_line(tmp_path: Path, text: str) -> None:
    document = tmp_path / "api.yaml"
    document.write_text(text, encoding="utf-8")
    with pytest.raises(
        generate.GenerationError, match=rf"^not YAML: (.|\n)*{re.escape(str(document))}\", line [1-4], "
    ):
        generate.read_yaml(document)
