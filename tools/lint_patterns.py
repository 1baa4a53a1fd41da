"""Finds regular expressions whose time grows faster than the text they read.

Python's `re` (and msgspec, which uses it for the contract's patterns) tries alternatives one after the other: a pattern
that can read one text in many ways reads a client's text in quadratic or exponential time. So: every pattern in the
services' Python, in the OpenAPI contract and in the protobuf field rules is made an automaton, and is refused when that
is ambiguous without bound (Weber and Seidl, "On the degree of ambiguity of finite automata", 1991): when a state leads to
itself in two ways by one text (exponential), or one loop can hand over to another anywhere in one text (polynomial).
Envoy's own engine, RE2, is linear by construction and refuses what it cannot do so; Envoy itself loads those patterns in
`tools/lint_envoy.py`. Look-around, back-references and possessive or atomic groups are refused as well: RE2 and
ECMA 262, which read the contract's patterns elsewhere, know none of them.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

# By name: no stubs have them, whatever mypy has cached.
op, _parser = (importlib.import_module(f"re.{name}") for name in ("_constants", "_parser"))

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("libs/chassis/src", "services/*/src", "devstack/src")
_FUNCTIONS = {"compile", "match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}
# Characters are told apart only as far as a pattern of ours does.
_ALPHABET = tuple(map(chr, range(0x180)))
# A counted repetition of more is looked at as one without end.
_COUNTED = 16


class NotRegularError(ValueError):
    """A construct that no finite automaton has."""


class _Automaton:
    """Glushkov's: a state for each character of the pattern, and who may follow whom, in how many ways."""

    def __init__(self, pattern: str | bytes, *, anchored: bool) -> None:
        self.reads: list[frozenset[str]] = []
        self.follow: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        parsed = _parser.parse(pattern)
        self._dotall = bool(parsed.state.flags & re.DOTALL)
        items = list(parsed)
        if not anchored and not (items and items[0] == (op.AT, op.AT_BEGINNING)):
            # A search starts anew at every character.
            items = [(op.MAX_REPEAT, (0, op.MAXREPEAT, [(op.ANY, None)])), *items]
        self._sequence(items)

    def _state(self, characters: frozenset[str]) -> tuple[set[int], set[int], bool]:
        self.reads.append(characters)
        return {len(self.reads) - 1}, {len(self.reads) - 1}, False

    def _connect(self, last: set[int], first: set[int]) -> None:
        for left in last:
            for right in first:
                self.follow[left][right] += 1

    def _sequence(self, items: Any) -> tuple[set[int], set[int], bool]:
        first: set[int] = set()
        last: set[int] = set()
        empty = True
        for item in items:
            inner_first, inner_last, inner_empty = self._item(*item)
            self._connect(last, inner_first)
            first = first | inner_first if empty else first
            last = last | inner_last if inner_empty else inner_last
            empty = empty and inner_empty
        return first, last, empty

    def _item(self, kind: Any, argument: Any) -> tuple[set[int], set[int], bool]:
        if kind in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
            return self._state(_characters(kind, argument, dotall=self._dotall))
        if kind is op.AT:
            return set(), set(), True
        if kind is op.SUBPATTERN:
            return self._sequence(argument[-1])
        if kind is op.BRANCH:
            parts = [self._sequence(branch) for branch in argument[1]]
            first, last = set().union(*(p[0] for p in parts)), set().union(*(p[1] for p in parts))
            return first, last, any(p[2] for p in parts)
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            return self._repeat(*argument)
        raise NotRegularError(f"{kind} is nothing that every engine can do in linear time")

    def _repeat(self, least: int, most: Any, body: Any) -> tuple[set[int], set[int], bool]:
        if most is not op.MAXREPEAT and most <= _COUNTED:
            optional: list[Any] = []
            # x{1,3} is x(x(x)?)?, which a backtracking engine reads alike.
            for _ in range(most - least):
                optional = [(op.MAX_REPEAT, (0, 1, [*body, *optional]))] if most > 1 else []
            if most == 1:
                first, last, empty = self._sequence(body)
                return first, last, empty or least == 0
            return self._sequence([*(list(body) * least), *optional])
        first, last, empty = self._sequence(body)
        self._connect(last, first)
        return first, last, empty or least == 0

    def ambiguity(self) -> str | None:
        """`exponential` or `polynomial`, or None for what is linear."""
        for left, rights in self.follow.items():
            if any(ways > 1 and self._reaches(right, left) for right, ways in rights.items()):
                return "exponential"
        pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}

        def successors(pair: tuple[int, int]) -> list[tuple[int, int]]:
            if pair not in pairs:
                a, b = pair
                pairs[pair] = [(x, y) for x in self.follow[a] for y in self.follow[b] if self.reads[x] & self.reads[y]]
            return pairs[pair]

        looping = [state for state in range(len(self.reads)) if self._reaches(state, state)]
        for state in looping:
            seen = _reachable((state, state), successors)
            if any(a != b and (state, state) in _reachable((a, b), successors) for a, b in seen):
                return "exponential"
        for left in looping:
            for right in looping:
                if left != right and self._reaches(left, right) and self._hands_over(left, right):
                    return "polynomial"
        return None

    def _reaches(self, start: int, end: int) -> bool:
        return end in _reachable(start, lambda state: list(self.follow[state]))

    def _hands_over(self, left: int, right: int) -> bool:
        """Whether one text leads from `left` to itself, from `left` to `right` and from `right` to itself."""

        def successors(triple: tuple[int, int, int]) -> list[tuple[int, int, int]]:
            a, b, c = triple
            return [
                (x, y, z)
                for x in self.follow[a]
                for y in self.follow[b]
                if (common := self.reads[x] & self.reads[y])
                for z in self.follow[c]
                if common & self.reads[z]
            ]

        return (left, right, right) in _reachable((left, left, right), successors)


def _reachable(start: Any, successors: Any) -> set[Any]:
    """What is reached from `start` in one step or more."""
    seen: set[Any] = set()
    waiting = [start]
    while waiting:
        for following in successors(waiting.pop()):
            if following not in seen:
                seen.add(following)
                waiting.append(following)
    return seen


def _characters(kind: Any, argument: Any, *, dotall: bool) -> frozenset[str]:
    if kind is op.LITERAL:
        # What is beyond the alphabet is one character to us.
        return frozenset({chr(argument) if argument < len(_ALPHABET) else _ALPHABET[-1]})
    if kind is op.NOT_LITERAL:
        return frozenset(_ALPHABET) - {chr(argument)}
    if kind is op.ANY:
        return frozenset(_ALPHABET) if dotall else frozenset(_ALPHABET) - {"\n"}
    found: set[str] = set()
    negated = False
    for part, value in argument:
        if part is op.NEGATE:
            negated = True
        elif part is op.RANGE:
            found.update(c for c in _ALPHABET if value[0] <= ord(c) <= value[1])
        elif part is op.CATEGORY:
            found.update(c for c in _ALPHABET if re.fullmatch(_CATEGORIES[value], c))
        else:
            found |= _characters(part, value, dotall=dotall)
    return frozenset(_ALPHABET) - found if negated else frozenset(found)


_CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d", op.CATEGORY_NOT_DIGIT: r"\D", op.CATEGORY_SPACE: r"\s", op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w", op.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip


def problem(pattern: str | bytes, *, anchored: bool = False) -> str | None:
    """What is wrong with a pattern; `anchored` when it is only matched from a text's beginning."""
    try:
        kind = _Automaton(pattern, anchored=anchored).ambiguity()
    except (re.error, NotRegularError) as error:
        return str(error)
    return f"{kind} time" if kind else None


def in_python(source: str) -> Iterator[tuple[int, str | bytes, bool]]:
    """Line, pattern and whether it is used anchored, of every literal pattern handed to `re`.

    A compiled pattern counts as anchored when its name is used with match and fullmatch only.
    """
    tree = ast.parse(source)
    searched = {
        node.func.value.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if isinstance(node.func.value, ast.Name) and node.func.attr in _FUNCTIONS - {"compile", "match", "fullmatch"}
    }
    names = {
        id(node.value): target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re" and node.func.attr in _FUNCTIONS):
            continue
        argument = node.args[0]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str | bytes):
            anchored = node.func.attr in ("match", "fullmatch") or (
                node.func.attr == "compile" and id(node) in names and names[id(node)] not in searched
            )
            yield node.lineno, argument.value, anchored


def quadratic_cookies(source: str) -> Iterator[int]:
    """Lines that have Starlette read the cookies, which unquotes them in quadratic time (CVE-2024-7592)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "cookies":
            yield node.lineno


def in_openapi(node: Any, where: str = "#") -> Iterator[tuple[str, str]]:
    """Place and pattern of every `pattern` of a document."""
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield where, node["pattern"]
        for key, value in node.items():
            yield from in_openapi(value, f"{where}/{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from in_openapi(value, f"{where}/{index}")


def in_proto(text: str) -> Iterator[str]:
    """Every pattern of the field rules; rules match whole values."""
    for found in re.findall(r'\bpattern: "((?:[^"\\]|\\.)*)"', text):
        yield ast.literal_eval(f'"{found}"')


def problems() -> Iterator[str]:
    """Every pattern of ours that is not linear, and every one of the contract that is not anchored."""
    for places in SOURCES:
        for path in sorted(ROOT.glob(f"{places}/**/*.py")):
            source = path.read_text(encoding="utf-8")
            for line in quadratic_cookies(source):
                yield f"{path.relative_to(ROOT)}:{line}: cookies are read by chassis.http.parsing.read_cookie"
            for line, pattern, anchored in in_python(source):
                if found := problem(pattern, anchored=anchored):
                    yield f"{path.relative_to(ROOT)}:{line}: {pattern!r}: {found}"
    for path in sorted((ROOT / "api/openapi").glob("*.yaml")):
        for where, pattern in in_openapi(yaml.safe_load(path.read_text(encoding="utf-8"))):
            if not (pattern.startswith("^") and pattern.endswith("$")):
                yield f"{path.name} {where}: {pattern!r}: must start with ^ and end with $"
            if found := problem(pattern):
                yield f"{path.name} {where}: {pattern!r}: {found}"
    for path in sorted((ROOT / "api/proto").rglob("*.proto")):
        for pattern in in_proto(path.read_text(encoding="utf-8")):
            if found := problem(pattern, anchored=True):
                yield f"{path.relative_to(ROOT)}: {pattern!r}: {found}"


def main() -> None:
    """Print every problem; exit 1 when there is one."""
    found = list(problems())
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
