"""Which names a service cannot have, and that nothing half-made stays."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest
from devstack.layout import ROOT
from devstack.new_service import NotMadeError, make
from mesh.topology import TABLE, Service, faults

from devstack import new_service


def why(name: str) -> str:
    with pytest.raises(NotMadeError) as refused:
        make(name, database=True)
    return str(refused.value)


@pytest.mark.parametrize(
    "name",
    ["", "../orders", "a/b", "stock-alerts", "Stock", "1st", "_stock", "stock_", "stock__alerts", "größe", "st ock", "s\n", "a" * 41],
)  # fmt: skip
def test_what_is_no_name_is_refused(name: str) -> None:
    assert "small letters and digits" in why(name)


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("order", ["the table has a row of this name"]),
        ("edge", ["the table has a row of this name"]),
        ("class", ["Python has a word or a module of this name"]),
        ("json", ["Python has a word or a module of this name"]),
        ("match", ["it means something in Python itself"]),
        ("list", ["it means something in Python itself"]),
        ("redis", ["the environment has a package of this name"]),
        ("postgres", ["something else has this name"]),
        ("common", ["api/proto/common is there already", "libs/contracts/src/contracts/common is there already"]),
        ("errors", ["libs/contracts/src/contracts/errors.py is there already"]),
        ("docs", ["docs is there already"]),
        ("answers", ["tests/answers.py is there already"]),
        ("a", ["a name is small letters"]),
        # All at once.
        ("tests", ["something else has this name", "tests is there already"]),
    ],
)
def test_what_others_have_is_refused_with_every_reason(name: str, reasons: list[str]) -> None:
    said = why(name)
    assert [reason for reason in reasons if reason not in said] == [], said


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """As much of a repository as the command needs until it runs its first program."""
    shutil.copytree(ROOT / "templates", tmp_path / "templates")
    table = tmp_path / "libs/mesh/src/mesh/topology.py"
    table.parent.mkdir(parents=True)
    shutil.copy(ROOT / "libs/mesh/src/mesh/topology.py", table)
    (tmp_path / "services").mkdir()
    return tmp_path


def everything(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(root.rglob("*"))}


@pytest.mark.parametrize("error", [NotMadeError("generation failed"), KeyboardInterrupt()])
def test_a_step_that_fails_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    before = everything(root)

    def fails(what: str, *_: str, **__: Path) -> None:
        if what == "make generate":
            raise error

    monkeypatch.setattr(new_service, "_step", fails)
    with pytest.raises(type(error)):
        make("stock_alerts", database=True, root=root)
    assert everything(root) == before


def test_what_python_left_of_a_removed_service_is_in_nobodys_way(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_service, "_step", lambda *_, **__: None)
    cache = root / "services/stock_alerts/src/stock_alerts/__pycache__/main.cpython-311.pyc"
    cache.parent.mkdir(parents=True)
    cache.touch()
    assert make("stock_alerts", database=False, root=root).row.name == "stock_alerts"


@pytest.mark.parametrize("database", [False, True])
def test_the_template_is_written_under_the_new_name_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch, database: bool
) -> None:
    monkeypatch.setattr(new_service, "_step", lambda *_, **__: None)
    made = make("stock_alerts", database=database, root=root)
    texts = {str(path): (root / path).read_text(encoding="utf-8") for path in made.files}
    assert not [path for path, text in texts.items() if "sample" in (path + text).lower()]
    assert "service StockAlertsService {" in texts["api/proto/stock_alerts/v1/stock_alerts.proto"]
    assert any("db/migrations/20" in path for path in texts) is database
    rows = runpy.run_path(str(root / "libs/mesh/src/mesh/topology.py"), run_name="mesh.topology")["SERVICES"]
    assert [row.name for row in rows] == [*(row.name for row in TABLE if isinstance(row, Service)), "stock_alerts"]
    assert faults((*TABLE, made.row)) == []


def test_ports_are_free_ones_while_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    table = TABLE
    for number in range(10):
        table = (*table, new_service._row(f"service_{number}", database=False))
        assert faults(table) == []
        monkeypatch.setattr(new_service, "TABLE", table)
        monkeypatch.setattr(new_service, "SERVICES", [row for row in table if isinstance(row, Service)])
