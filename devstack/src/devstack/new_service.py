"""Makes a service: a copy of one of the two in `templates/`, under a name of its own, and its row in the table.

A template is a service like every other, called sample: what is written is its files with that word exchanged, in the
house format. Until the last step has succeeded nothing stays of it: what a step that fails has made is removed.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import keyword
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mesh.topology import EDGE, FIRST_PORT, OTHER_PORTS, PORTS_EACH, SERVICES, TABLE, Database, Service, faults

from devstack.layout import ROOT

_TABLE_FILE = Path("libs/mesh/src/mesh/topology.py")
_WORD = re.compile(r"sample|Sample")
_STAMP = "00000000000000"
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# A PostgreSQL role is NAME_service, of 63 bytes at most; and people type names.
_LONGEST = 40


class NotMadeError(Exception):
    """The service was not made, and nothing is left of it; the message says why, a line for each reason."""


@dataclass(frozen=True, slots=True)
class Made:
    """What there is now, relative to the repository."""

    files: tuple[Path, ...]
    row: Service


def make(name: str, *, database: bool, root: Path = ROOT) -> Made:
    """Write the service, install it, and generate what follows from it.

    Args:
        name: of the service, its folder, package, distribution, process and identity.
        database: whether it has one.
        root: of the repository.

    Raises:
        NotMadeError: the name cannot be had, or a step failed.
    """
    row = _row(name, database=database)
    if found := problems(row, root):
        raise NotMadeError("\n".join(found))
    files = _rendered(name, root / "templates" / ("service-with-database" if database else "service"))
    if taken := [str(path) for path in files if (root / path).exists()]:
        raise NotMadeError("\n".join(f"{path} is there already" for path in taken))
    with _undone_unless_whole(root, files):
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        table = root / _TABLE_FILE
        table.write_text(_with_row(table.read_text(encoding="utf-8"), row), encoding="utf-8")
        python = [str(root / path) for path in files if path.suffix == ".py"]
        # Another word is of another length, and sorts elsewhere.
        _step("ruff", "-m", "ruff", "check", "--quiet", "--fix", "--select", "I", *python, root=root)
        _step("ruff", "-m", "ruff", "format", "--quiet", *python, root=root)
        _step("the environment", "tools/bootstrap.py", root=root)
        _step("make generate", "tools/generate.py", root=root)
    return Made(tuple(files), row)


def problems(row: Service, root: Path = ROOT) -> list[str]:
    """Why there can be no service of this row; a line for each reason."""
    name = row.name
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        return [
            f"{name!r}: a name is of small letters and digits, in words joined by one underscore each, begins with a "
            f"letter, and has {_LONGEST} characters at most"
        ]
    if any(name == known.name for known in TABLE):
        return [f"{name}: the table has a row of this name"]
    found = [fault for fault in faults((*TABLE, row)) if fault not in faults(TABLE)]
    if keyword.issoftkeyword(name) or hasattr(builtins, name):
        found.append(f"{name}: it means something in Python itself, and would be hidden by the package")
    if place := _installed(name):
        found.append(f"{name}: the environment has a package of this name, {place}")
    contracts = root / "libs/contracts/src/contracts"
    places = [root / row.folder, root / "api/proto" / name, contracts / name, contracts / f"{name}.py", root / name]
    places += [path for place in (root, root / "tests", root / "tools") for path in place.glob(f"{name}.py")]
    found += [f"{name}: {path.relative_to(root)} is there already" for path in places if _holds_something(path)]
    return found


def _holds_something(path: Path) -> bool:
    """Whether there is more than what Python has left of modules that are gone."""
    return path.is_file() or any(found.is_file() and found.parent.name != "__pycache__" for found in path.rglob("*"))


def _installed(name: str) -> str:
    if name in sys.stdlib_module_names:
        # `faults` says that.
        return ""
    spec = importlib.util.find_spec(name)
    return "" if spec is None else str(spec.origin or next(iter(spec.submodule_search_locations or ()), ""))


def _row(name: str, *, database: bool) -> Service:
    used = {*OTHER_PORTS.values(), *(port for row in TABLE for port in row.ports)}
    free = [port for port in range(FIRST_PORT, FIRST_PORT + PORTS_EACH) if port not in used]
    above = max(port for service in SERVICES for port, listener in service.ports.items() if "_ops" not in listener)
    # Beside the others of its kind, while there is room.
    port = next((port for port in free if port > above), free[0] if free else 0)
    ops_port = next((found for found in free if found > EDGE.ops_port and found != port), free[-1] if free else 0)
    return Service(
        name=name,
        port=port,
        ops_port=ops_port,
        contracts=(f"proto/{name}/v1/{name}.proto",),
        database=Database(f"{name}db", role=f"{name}_service") if database else None,
        secrets=("cursor_secret",) if database else (),
        tokens="verifies",
    )


def _rendered(name: str, template: Path) -> dict[Path, str]:
    words = {"sample": name, "Sample": "".join(map(str.capitalize, name.split("_")))}
    now = f"{datetime.now(UTC):%Y%m%d%H%M%S}"

    def exchanged(text: str) -> str:
        return _WORD.sub(lambda match: words[match[0]], text)

    return {
        Path(exchanged(path.relative_to(template).as_posix()).replace(_STAMP, now)): exchanged(
            path.read_text(encoding="utf-8")
        )
        for path in sorted(template.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def _with_row(source: str, row: Service) -> str:
    """The table's module with one more row, after the last service."""
    table = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "TABLE"
    )
    rows = [
        node
        for node in ast.walk(table)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Service"
    ]
    after = max(node.end_lineno or 0 for node in rows)
    cells = [
        f"name={_text(row.name)}",
        f"port={row.port}",
        f"ops_port={row.ops_port}",
        f"contracts=({_text(row.contracts[0])},)",
        *([f"database=Database({_text(row.database.name)}, role={_text(row.database.role)})"] if row.database else []),
        *([f"secrets=({_text(row.secrets[0])},)"] if row.secrets else []),
        f"tokens={_text(row.tokens)}",
    ]
    written = ["    Service(", *(f"        {cell}," for cell in cells), "    ),"]
    lines = source.split("\n")
    return "\n".join([*lines[:after], *written, *lines[after:]])


def _text(value: str) -> str:
    return f'"{value}"'


def _step(what: str, *arguments: str, root: Path) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        raise NotMadeError(f"{what} failed, so nothing of the service was kept:\n{(done.stdout + done.stderr).strip()}")


@contextmanager
def _undone_unless_whole(root: Path, files: dict[Path, str]) -> Iterator[None]:
    """Remove these files, the directories made for them, and the row, unless the block ends well."""
    table = (root / _TABLE_FILE).read_bytes()
    made = {folder for path in files for folder in path.parents if not (root / folder).exists()}
    try:
        yield
    except BaseException:
        for folder in sorted(made):
            shutil.rmtree(root / folder, ignore_errors=True)
        for path in files:
            (root / path).unlink(missing_ok=True)
        (root / _TABLE_FILE).write_bytes(table)
        raise
