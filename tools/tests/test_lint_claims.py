"""What a document names that is not there, each kind by a page that is wrong in that alone."""

from __future__ import annotations

import pytest
from lint_claims import Tree, faults, repository

# Everything in it is right, so that each replacement below is what is found.
PAGE = """# A page
See [the other](../README.md#two-words-1), [here](#a-page), [outside](https://example.com/none#none), <img src="../images/a.png">.
`tests/e2e/test_a.py::TestA::test_one`, `test_a.py`, `test_one`, `test_o…`, `tests/e2e`, `services/*/src`, `services/{name}/src`,
`.venv/bin/python tools/check.py all`, `make lint T="x"`, `backend keys rotate`, `./backend up --data-dir x`, ADR 0001.

```sh
make lint test  # both
./backend keys rotate
```
"""
SOURCE = "class TestA:\n    def test_one(self) -> None: ...\n"


def tree(page: str) -> Tree:
    files = ("docs/pages/page.md", "docs/README.md", "docs/images/a.png", "docs/adr/0001-one.md", "tools/check.py")
    return Tree(
        texts={"docs/pages/page.md": page, "docs/README.md": "# Two words\n```sh\n# not one\n```\n## Two `words`\n"},
        files=[*files, "tests/e2e/test_a.py", "services/order/src/main.py"],
        targets={"lint", "test"},
        commands={"keys": {"rotate"}, "up": set()},
        sources={"tests/e2e/test_a.py": SOURCE},
    )


def test_what_is_there_is_no_fault() -> None:
    assert faults(tree(PAGE)) == []


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("../README.md#", "../READ.md#", "../READ.md#two-words-1: no such file"),
        ("../README.md#", "../../../README.md#", "../../../README.md#two-words-1: no such file"),
        ("two-words-1", "two-words-2", "../README.md#two-words-2: no such heading"),
        ("two-words-1", "not-one", "../README.md#not-one: no such heading"),
        ("(#a-page)", "(#page)", "#page: no such heading"),
        ("a.png", "b.png", "../images/b.png: no such file"),
        ("TestA::", "TestB::", "tests/e2e/test_a.py has no TestB"),
        ("::test_one", "::test_on", "tests/e2e/test_a.py has no test_on"),
        ("`tests/e2e/test_a.py::", "`tests/e2e/test_b.py::", "tests/e2e/test_b.py: no such file"),
        ("`test_a.py`", "`test_b.py`", "test_b.py: no such file"),
        ("`test_one`", "`test_two`", "test_two: no such test"),
        ("`test_o…`", "`test_w…`", "test_w…: no such test"),
        ("`tests/e2e`", "`tests/e3e`", "tests/e3e: no such file"),
        ("`services/*/src`", "`services/*/source`", "services/*/source: no such file"),
        ("tools/check.py", "tools/checks.py", "tools/checks.py: no such file"),
        ('make lint T="x"', 'make lints T="x"', "make lints: no such target"),
        ("make lint test ", "make lint tests ", "make tests: no such target"),
        ("`backend keys rotate`", "`backend keys turn`", "backend keys turn: no such command"),
        ("\n./backend keys", "\n./backend key", "backend key: no such command"),
        ("./backend up", "./backend start", "backend start: no such command"),
        ("ADR 0001", "ADR 0002", "there is no ADR 0002"),
        ("ADR 0001", "design section 4", "design section 4: of a paper that is not here"),
    ],
)
def test_what_is_not_there_is_named(right: str, wrong: str, said: str) -> None:
    assert PAGE.count(right) == 1
    assert faults(tree(PAGE.replace(right, wrong))) == [f"docs/pages/page.md: {said}"]


def test_it_reads_what_people_read_and_knows_what_there_is() -> None:
    here = repository()
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/network.md", "docs/runbooks/errors.md"} <= set(
        here.texts
    )
    assert {"test", "publish", "verify"} <= set(here.targets)
    assert "rotate" in here.commands["keys"]
    assert not here.commands["up"]
