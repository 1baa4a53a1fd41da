"""The comparison with golden files itself: what is different is found, and what is the same thing has one name."""

from __future__ import annotations

from pathlib import Path

import goldens
import pytest
from chassis.ids import uuid7
from contracts.order.v1.order_pb2 import GetOrderRequest, Order

FILES = sorted(path for kind in goldens.KINDS for path in (goldens.GOLDEN / kind).iterdir())


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of golden files of the test's own."""
    monkeypatch.setattr(goldens, "ROOT", tmp_path)
    monkeypatch.setattr(goldens, "GOLDEN", tmp_path)
    monkeypatch.setattr(goldens, "WRITING", False)
    return tmp_path


@pytest.mark.parametrize("kind", goldens.KINDS)
def test_a_row_that_is_missing_is_shown(copies: Path, kind: str) -> None:
    for file in (path for path in FILES if path.parent.name == kind):
        text = file.read_text(encoding="utf-8")
        (copies / file.name).write_text(text, encoding="utf-8")
        goldens.check(file.name, text)
        lines = text.splitlines()
        missing = lines.pop(len(lines) // 2)
        (copies / file.name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        with pytest.raises(AssertionError) as failed:
            goldens.check(file.name, text)
        assert f"+{missing}" in str(failed.value).splitlines()


def test_a_file_that_is_missing_is_shown(copies: Path) -> None:
    with pytest.raises(AssertionError, match="make golden"):
        goldens.check("new.txt", "text")
    assert not list(copies.iterdir())


def test_it_is_written_when_that_is_asked_for_and_what_has_changed_is_shown(
    copies: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(goldens, "WRITING", True)
    (copies / "file.txt").write_text("before\n", encoding="utf-8")
    goldens.check("file.txt", "after")
    assert (copies / "file.txt").read_text(encoding="utf-8") == "after\n"
    assert {"-before", "+after"} <= set(capsys.readouterr().out.splitlines())


def test_the_same_thing_has_the_same_name_and_another_has_another() -> None:
    names, one, other = goldens.Names(), str(uuid7()), str(uuid7())
    assert names.message(Order(id=one, user_id=other)) == {"id": "<order-1>", "user_id": "<user-1>"}
    assert names.message(GetOrderRequest(id=one)) == {"id": "<order-1>"}
    assert names.text(f"of user/{other} and order/{uuid7()}") == "of user/<user-1> and order/<order-2>"
    assert names.text("at 2026-11-27T21:00:00.123Z") == "at <time-1>"


def test_no_golden_file_has_what_is_of_one_run() -> None:
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert goldens.Names().text(text) == text, file
