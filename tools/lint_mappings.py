"""Whoever makes a message of a contract says something about each of its fields.

A field that is added to a contract and forgotten where the message is made has its default for ever, and nothing
complains: protobuf's messages and our HTTP models can be made without it. So wherever a service makes one, all fields
are named, or those that are not stand in a comment within the call, or above
its line: `# leaves out: created_at, items`.

    .venv/bin/python tools/lint_mappings.py [FILE ...]
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import Message
from mesh.topology import SERVICES
from msgspec import Struct

ROOT = Path(__file__).resolve().parent.parent
_LEFT_OUT = re.compile(r"# leaves out: ([\w, ]+)$", re.MULTILINE)
# `chassis.http.answers.matching` sets it, on a message that is complete otherwise.
_SET_LATER = {"expected_version"}


def problems(path: Path) -> list[str]:
    """What is wrong in one module: fields forgotten, and comments that are not true."""
    text = path.read_text(encoding="utf-8")
    lines, tree = text.splitlines(), ast.parse(text)
    contracts = _contracts(tree)
    found = []
    for call, made in _constructions(tree, contracts):
        fields = _fields(made)
        named = {keyword.arg for keyword in call.keywords if keyword.arg}
        said = _LEFT_OUT.findall("\n".join(lines[max(0, call.lineno - 2) : call.end_lineno]))
        left_out = {name.strip() for names in said for name in names.split(",")}
        where = f"{path}:{call.lineno}: {made.__name__}"
        found += [f"{where} is made without {name}" for name in sorted(fields - named - left_out - _SET_LATER)]
        found += [f"{where} does not leave out {name}" for name in sorted(left_out & named | left_out - fields)]
    return found


def _contracts(tree: ast.Module) -> dict[str, object]:
    """What a module imports of the contracts (modules, messages, models), by the names it has for it."""
    found: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("contracts."):
            # `from contracts.order.v1 import order_pb2`, or `from contracts.user.v1.session_pb2 import Client`.
            holder = importlib.import_module(node.module)
            for name in node.names:
                value = getattr(holder, name.name, None)
                if value is None and hasattr(holder, "__path__"):
                    value = importlib.import_module(f"{node.module}.{name.name}")
                found[name.asname or name.name] = value
    return found


def _constructions(tree: ast.Module, contracts: dict[str, object]) -> Iterator[tuple[ast.Call, type]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(name):
                made = contracts.get(name)
            case ast.Attribute(ast.Name(module), name):
                made = getattr(contracts.get(module), name, None)
            case _:
                continue
        # One made of nothing is the start of a copy.
        is_made_of_something = node.args or node.keywords
        if is_made_of_something and isinstance(made, type) and issubclass(made, Message | Struct):
            yield node, made


def _fields(made: type) -> set[str]:
    if issubclass(made, Message):
        return {field.name for field in made.DESCRIPTOR.fields}
    return set(made.__struct_fields__) if issubclass(made, Struct) else set()


def main() -> None:
    """Check the files named, or all of the services; exits 1 when something is forgotten."""
    paths = [Path(name) for name in sys.argv[1:]] or [
        path for service in SERVICES for path in sorted((ROOT / service.folder / "src").rglob("*.py"))
    ]
    found = [problem for path in paths for problem in problems(path)]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
