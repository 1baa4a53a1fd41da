"""Every rule of ruff that pyproject.toml ignores still finds something: one that does not is ignored for no reason."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A rule's code, and the file that it finds something in.
Hit = tuple[str, str]


def hits(settings: Mapping[str, object], root: Path = ROOT) -> set[Hit]:
    """What ruff finds when it ignores nothing, under these settings (`tool.ruff`)."""
    options = [option for name, value in _flat(settings) for option in ("--config", f"{name}={json.dumps(value)}")]
    command = [str(Path(sys.executable).parent / "ruff"), "check", ".", "--isolated", "--exit-zero", "--no-cache"]
    done = subprocess.run([*command, "--output-format=json", *options], cwd=root, capture_output=True, check=True)
    return {(found["code"], found["filename"]) for found in json.loads(done.stdout)}


def _flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """The settings by their dotted names, without those that ignore."""
    for key, value in settings.items():
        name = prefix + key
        if isinstance(value, Mapping) and name != "lint.per-file-ignores":
            yield from _flat(value, f"{name}.")
        elif name not in {"lint.ignore", "lint.per-file-ignores"}:
            yield name, value


def vain(lint: Mapping[str, object], found: set[Hit], root: Path = ROOT) -> list[str]:
    """The rules, and the rules of a pattern of files, that are ignored (`tool.ruff.lint`) and that nothing breaks."""
    everywhere, by_pattern = lint.get("ignore"), lint.get("per-file-ignores")
    patterns = {"**": everywhere, **(by_pattern if isinstance(by_pattern, dict) else {})}
    return [
        f"{rule} in {pattern}"
        for pattern, rules in patterns.items()
        for rule in (rules if isinstance(rules, list) else [])
        if not any(code.startswith(rule) and _matches(file, pattern, root) for code, file in found)
    ]


def _matches(file: str, pattern: str, root: Path) -> bool:
    """As ruff compares them: the whole path, or the path from the root on."""
    return fnmatch(file, pattern) or fnmatch(str(Path(file).relative_to(root)), pattern)


def main() -> None:
    """Exits 1 when a rule is ignored in vain."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    if found := vain(settings["lint"], hits(settings)):
        sys.exit("ignored in vain:\n  " + "\n  ".join(found))


if __name__ == "__main__":
    main()
