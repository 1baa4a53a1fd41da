"""Text is read and written as UTF-8, and says so: without an encoding it depends on the locale of whoever started us.

ruff's PLW1514 sees a file only where it can tell that something is a Path. This goes by the names alone, so that a path in
an attribute, or out of a call, is found as well; and it looks at programs that are run and whose output is read as text.

    .venv/bin/python tools/lint_encodings.py [FILE ...]
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_CHECKED = ("libs", "services", "devstack", "tools", "tests", "conftest.py")
# By the arguments that may be given by their place before it.
_TEXT = {"read_text": 0, "write_text": 1}
# Where a path's `open` and the built-in one have their mode.
_MODE = {ast.Attribute: 0, ast.Name: 1}
# What makes subprocess decode, unless it is told how.
_DECODING = {"text", "universal_newlines"}


def problems(path: Path) -> list[str]:
    """The calls of a module that read or write text and do not say in which encoding."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [f"{path}:{call.lineno}: no encoding" for call in calls if _is_text(call) and not _has_encoding(call)]


def _is_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in _TEXT:
        return len(call.args) <= _TEXT[name]
    if name == "open":
        return any("b" not in mode for mode in _modes(call))
    asked = [keyword.value for keyword in call.keywords if keyword.arg in _DECODING]
    return any(isinstance(value, ast.Constant) and value.value is True for value in asked)


def _modes(call: ast.Call) -> list[str]:
    """The mode that something is opened with; none when it is no file: sockets and pools are opened, too."""
    place = _MODE.get(type(call.func), 0)
    given = [*call.args[place : place + 1], *(k.value for k in call.keywords if k.arg == "mode")]
    modes = [node.value for node in given if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    if isinstance(call.func, ast.Name) and not given:
        return ["r"]
    return [mode for mode in modes if set(mode) <= set("rwaxbt+")]


def _has_encoding(call: ast.Call) -> bool:
    return any(keyword.arg in {"encoding", None} for keyword in call.keywords)


def modules() -> list[Path]:
    """Every module of ours that is not generated."""
    found = [
        path for name in _CHECKED for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))
    ]
    return sorted(path for path in found if "contracts/src/contracts/" not in path.as_posix())


def main() -> None:
    """Check the files named, or all of them; exits 1 when one does not say its encoding."""
    found = [problem for path in (list(map(Path, sys.argv[1:])) or modules()) for problem in problems(path)]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
