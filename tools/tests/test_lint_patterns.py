"""Which patterns take more than linear time."""

from __future__ import annotations

import pytest
from lint_patterns import in_proto, in_python, problem, problems

LINEAR = [
    r"^[A-Z]{3}$", r"^[^@\s]+@[^@\s]+$", r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", r"^tok_[a-z0-9_]{1,60}$",
    r"^[A-Z0-9][A-Z0-9-]{1,39}$", r"^(a|b)*c$", r"^(ab|ac)*$", r"^[^\x00]*$", r"[^\x20-\x7e]", r"{(\w+)}",
    r'^(W/)?"[!#-~]*"(,[ ]*(W/)?"[!#-~]*")*$', r"^(a{1,3}b)*$",
]  # fmt: skip
EXPONENTIAL = [
    r"^(a+)+$",
    r"^(a*)*$",
    r"^(a|ab|b)*$",
    r"^(a|aa)+$",
    r"^([a-z]+[0-9]*)+$",
    r"^(.*a){2,40}$",
    r"^((ab)*|a|b)*c$",
]
POLYNOMIAL = [
    r"^\s*\s*$",
    r"^a*[ab]*c$",
    r"(.*) - at `(key in )?\$(.*)`$",
    r"\s+$",
    r"^.*,.*,x$",
    r"^[a-z]{1,60}[a-f]{1,60}$",
]
NO_REGULAR = [r"^(a)\1$", r"^(?=a)a$", r"^(?<!a)b$", r"^(?>a+)b$", r"^a++b$"]


@pytest.mark.parametrize("pattern", LINEAR)
def test_a_linear_one_passes(pattern: str) -> None:
    assert problem(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "time"),
    [*((p, "exponential time") for p in EXPONENTIAL), *((p, "polynomial time") for p in POLYNOMIAL)],
)
def test_one_that_is_not_is_found(pattern: str, time: str) -> None:
    assert problem(pattern) == time


@pytest.mark.parametrize("pattern", NO_REGULAR)
def test_what_not_every_engine_can_do_is_refused(pattern: str) -> None:
    assert "linear" in (problem(pattern) or "")


def test_patterns_are_found_where_they_stand() -> None:
    source = 'import re\nA = re.compile("a+")\nB = re.compile("b+")\nB.search("")\nA.fullmatch("")\nre.sub(r"\\s+$", "", "")\n'
    assert list(in_python(source)) == [(2, "a+", True), (3, "b+", False), (6, r"\s+$", False)]
    assert list(in_proto('string a = 1 [(rules) = {pattern: "[\\\\x21-\\\\x7e]{8}"}];')) == [r"[\x21-\x7e]{8}"]


def test_ours_are_linear() -> None:
    assert list(problems()) == []
