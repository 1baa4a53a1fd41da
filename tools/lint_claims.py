"""What documents name exists: pages and headings, files and tests, targets of the Makefile, commands, decisions.

Read are README.md, CONTRIBUTING.md, SECURITY.md and docs/. Of code spans and `sh` blocks, what is no name (`…`, `{id}`,
`SERVICE/`) is left alone.
"""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import typer.main
from devstack.cli import app
from typer.core import TyperGroup

ROOT = Path(__file__).resolve().parent.parent
_FOLDERS = ("api", "deploy", "devstack", "docs", "libs", "services", "templates", "tests", "tools")
_BLOCK = re.compile(r"^(?:```|~~~)(\w*)[^\n]*\n(.*?)^(?:```|~~~)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)|\b(?:src|srcset|href)=\"([^\"\s]+)\"")
_SPAN = re.compile(r"`([^`\n]+)`")
_DECISION = re.compile(r"\bADRs? (\d{4})\b")
_SECTION = re.compile(r"\bdesign,? (?:section|chapter|§) ?\d+", re.IGNORECASE)
_PATH = re.compile(rf"(?:{'|'.join(_FOLDERS)})/[\w./*-]+")
_TEST = re.compile(r"test_\w+…?")
# What a walk-through has its reader make; tests/operate does the walk.
_MADE = {"docs/extending.md": "stock_alerts", "docs/tutorial.md": "test_availability"}
_HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)


@dataclass
class Tree:
    """What there is to name: texts by path, the paths of all files, Makefile targets and commands of `backend`."""

    texts: Mapping[str, str]
    files: Collection[str]
    targets: Collection[str]
    commands: Mapping[str, Collection[str]]
    sources: Mapping[str, str] = field(default_factory=dict)


def faults(tree: Tree) -> list[str]:
    """A line for each name that names nothing, beginning with the page."""
    names = {name for text in tree.sources.values() for name in re.findall(r"(?:def|class) (\w+)", text)}
    names |= {Path(file).stem for file in tree.sources}
    return [f"{page}: {fault}" for page, text in tree.texts.items() for fault in _of_page(tree, page, text, names)]


def _of_page(tree: Tree, page: str, text: str, names: Collection[str]) -> Iterator[str]:
    prose = _BLOCK.sub("", text)
    for target in map("".join, _LINK.findall(prose)):
        if not re.match(r"[a-z]+:", target):
            yield from _link(tree, page, target)
    for number in _DECISION.findall(prose):
        if not any(file.startswith(f"docs/adr/{number}-") for file in tree.files):
            yield f"there is no ADR {number}"
    for section in _SECTION.findall(prose):
        yield f"{section}: of a paper that is not here"
    commands = [line for kind, block in _BLOCK.findall(text) if kind == "sh" for line in block.splitlines()]
    for span in _SPAN.findall(prose):
        if not (page in _MADE and _MADE[page] in span):
            yield from _span(tree, span, names)
        commands.append(span)
    for command in commands:
        yield from _command(tree, command.split())


def _link(tree: Tree, page: str, target: str) -> Iterator[str]:
    path, _, anchor = target.partition("#")
    full = page
    if path:
        full = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        if not any(file == full or file.startswith(f"{full}/") for file in tree.files):
            yield f"{target}: no such file"
            return
    if anchor and full in tree.texts and anchor not in _anchors(tree.texts[full]):
        yield f"{target}: no such heading"


def _anchors(text: str) -> set[str]:
    """Of headings, as GitHub makes them: what is said twice has a number."""
    anchors: set[str] = set()
    for heading in _HEADING.findall(_BLOCK.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w -]", "", plain.lower()).replace(" ", "-")
        count, anchor = 0, slug
        while anchor in anchors:
            count += 1
            anchor = f"{slug}-{count}"
        anchors.add(anchor)
    return anchors


def _span(tree: Tree, span: str, names: Collection[str]) -> Iterator[str]:
    """A file, a test in it, or a test by its name alone: the first word that is one, options may follow."""
    for word in span.split():
        path, _, inside = word.partition("::")
        if _PATH.fullmatch(path) and not re.search(r"/[A-Z]+/", path):
            found = _matching(tree.files, path)
            if not found:
                yield f"{path}: no such file"
            for name in re.findall(r"\w+…?", inside):
                if found and not any(_defines(tree.sources.get(file, ""), name) for file in found):
                    yield f"{path} has no {name}"
        elif re.fullmatch(r"test_\w+\.py", path):
            if not any(file.endswith(f"/{path}") for file in tree.files):
                yield f"{path}: no such file"
        elif _TEST.fullmatch(word) and not (
            any(name.startswith(word[:-1]) for name in names) if word.endswith("…") else word in names
        ):
            yield f"{word}: no such test"


def _matching(files: Collection[str], path: str) -> list[str]:
    """The files that a path means: itself, all of a folder's, those of a pattern."""
    path = path.rstrip("/.")
    pattern = re.compile(re.escape(path).replace(r"\*\*", ".*").replace(r"\*", "[^/]*") + "(/.*)?")
    return [file for file in files if pattern.fullmatch(file)]


def _defines(source: str, name: str) -> bool:
    tail = r"\w*" if name.endswith("…") else r"\b"
    return re.search(rf"(?:def|class) {name.rstrip('…')}{tail}", source) is not None


def _command(tree: Tree, words: list[str]) -> Iterator[str]:
    """`make TARGET …` and `backend COMMAND …`; options before the command are not looked at."""
    if words[:1] == ["make"]:
        for word in words[1:]:
            if not re.fullmatch(r"[a-z][a-z-]*", word):
                break
            if word not in tree.targets:
                yield f"make {word}: no such target"
    elif words[:1] in (["backend"], ["./backend"]) and len(words) > 1 and re.fullmatch(r"[a-z][a-z-]*", words[1]):
        if words[1] not in tree.commands:
            yield f"backend {words[1]}: no such command"
        elif (
            (below := tree.commands[words[1]])
            and len(words) > 2
            and re.fullmatch(r"[a-z][a-z-]*", words[2])
            and words[2] not in below
        ):
            yield f"backend {words[1]} {words[2]}: no such command"


def repository(root: Path = ROOT) -> Tree:
    """The tree as it stands, with what is not committed yet."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=root, check=True, capture_output=True, encoding="utf-8").stdout.splitlines()
    files = [file for file in files if (root / file).is_file()]
    pages = re.compile(r"(README|CONTRIBUTING|SECURITY|CODE_OF_CONDUCT)\.md|docs/.*\.md")
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    return Tree(
        texts={file: (root / file).read_text(encoding="utf-8") for file in files if pages.fullmatch(file)},
        files=files,
        targets=set(" ".join(re.findall(r"^([a-z][a-z -]*):", makefile, re.MULTILINE)).split()),
        commands=_below(typer.main.get_group(app)),
        sources={
            file: (root / file).read_text(encoding="utf-8")
            for file in files
            if re.search(r"(^|/)test_\w+\.py$|(^|/)conftest\.py$", file)
            or (file.startswith("tests/") and file.endswith(".py"))
        },
    )


def _below(group: TyperGroup) -> dict[str, set[str]]:
    """The commands of each command, which has none or is a group."""
    return {
        name: set(command.commands) if isinstance(command, TyperGroup) else set()
        for name, command in group.commands.items()
    }


def main() -> None:
    """Exits 1 and says what names nothing."""
    if found := faults(repository()):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
