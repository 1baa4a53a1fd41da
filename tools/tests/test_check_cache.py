"""Nothing is said to have passed that was not checked as it is now."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import check_cache
import lint
import lint_envoy
import pytest
from check_cache import Passed, Tree
from lint import Check, Runner


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with an environment, and a check that counts how often it is run."""
    root = tmp_path / "repository"
    (root / ".venv").mkdir(parents=True)
    (root / ".venv/bootstrap.json").write_text("packages of today", encoding="utf-8")
    (root / ".gitignore").write_text(".venv/\nruns\n.lint_cache/\n", encoding="utf-8")
    (root / "good.py").write_text("right", encoding="utf-8")
    (root / "page.md").write_text("a page", encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    return root


def check(code: str = "", reads: str | None = r"\.py$") -> Check:
    counted = "open('runs', 'a', encoding='utf-8').write('.');"
    wrong = "any('wrong' in p.read_text(encoding='utf-8') for p in pathlib.Path('.').glob('*.py'))"
    return Check((sys.executable, "-c", f"import pathlib, sys; {counted}{code}\nsys.exit({wrong})"), reads)


def run(root: Path, what: Check) -> bool:
    return Runner(root, Passed(root / ".lint_cache")).run("python", what).passed


def runs(root: Path) -> int:
    return len((root / "runs").read_text(encoding="utf-8"))


def test_what_has_passed_is_not_checked_again(root: Path) -> None:
    assert run(root, check())
    outcome = Runner(root, Passed(root / ".lint_cache")).run("python", check())
    assert (outcome.passed, outcome.seconds, str(outcome), runs(root)) == (True, None, "ok   python (as before)", 1)


def test_what_it_does_not_read_does_not_matter(root: Path) -> None:
    run(root, check())
    (root / "page.md").write_text("another page", encoding="utf-8")
    assert run(root, check())
    assert runs(root) == 1


@pytest.mark.parametrize("change", ["changed", "new", "gone", "renamed", "back", "packages", "a folder"])
def test_whatever_changes_it_is_checked_again(root: Path, change: str) -> None:
    run(root, check())
    match change:
        case "changed":
            (root / "good.py").write_text("wrong", encoding="utf-8")
        case "new":
            (root / "more.py").write_text("wrong", encoding="utf-8")
        case "gone":
            (root / "good.py").unlink()
        case "renamed":
            (root / "good.py").rename(root / "better.py")
        case "back":
            # As old as it was, and as long.
            stat = (root / "good.py").stat()
            (root / "good.py").write_text("wrong", encoding="utf-8")
            os.utime(root / "good.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        case "packages":
            (root / ".venv/bootstrap.json").write_text("packages of tomorrow", encoding="utf-8")
        case _:
            (root / "folder").mkdir()
            (root / "folder/good.py").write_text("right", encoding="utf-8")
    passed = run(root, check())
    assert runs(root) == 2
    assert passed == (change not in ("changed", "new", "back"))


def test_another_command_or_other_files_are_another_check(root: Path) -> None:
    run(root, check())
    run(root, check("1;"))
    run(root, check(reads=""))
    assert runs(root) == 3


def test_another_python_is_another_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(root, check())
    monkeypatch.setattr(sys, "version", "4.0")
    run(root, check())
    assert runs(root) == 2


def test_what_fails_is_checked_each_time(root: Path) -> None:
    (root / "good.py").write_text("wrong", encoding="utf-8")
    assert not run(root, check())
    assert not run(root, check())
    assert runs(root) == 2


def test_what_changes_while_it_is_checked_is_checked_again(root: Path) -> None:
    writes = check(
        "pathlib.Path('new.py').write_text(str(len(open('runs', encoding='utf-8').read())), encoding='utf-8');"
    )
    assert run(root, writes)
    assert run(root, writes)
    assert runs(root) == 2


def test_nothing_is_remembered_where_it_cannot_be_told_what_was_read(root: Path) -> None:
    run(root, check(reads=None))
    run(root, check(reads=None))
    (root / ".venv/bootstrap.json").unlink()
    run(root, check())
    run(root, check())
    (root / ".venv/bootstrap.json").write_text("packages", encoding="utf-8")
    (root / ".git").rename(root / ".not")
    run(root, check())
    run(root, check())
    assert runs(root) == 6


@pytest.mark.parametrize("left", [b"", b"\xff\xfe", b"all is well"])
def test_a_broken_record_says_nothing(root: Path, left: bytes) -> None:
    run(root, check())
    (root / ".lint_cache/python").write_bytes(left)
    (root / "good.py").write_text("wrong", encoding="utf-8")
    assert not run(root, check())


def test_a_record_is_of_its_own_check(root: Path) -> None:
    passed = Passed(root / ".lint_cache")
    passed.add("python", ["a"])
    assert passed.has("python", "a")
    assert not passed.has("envoy", "a")
    passed.add("python", [str(number) for number in range(300)])
    assert not passed.has("python", "a")
    assert passed.has("python", "299")


def test_every_file_of_the_repository_is_read_by_some_check() -> None:
    names = Tree(lint.ROOT).names()
    assert "tools/lint.py" in names
    assert any(one.reads == "" for one in lint.CHECKS.values())
    assert {"mypy", "envoy", "generated code is current"} <= {
        name for name, one in lint.CHECKS.items() if one.reads is not None
    }


def test_a_configuration_is_known_by_its_text_and_python_by_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, with_service = "a listener", '{"app": "order.main:app"}'

    def keys() -> dict[str, str]:
        texts = {text: Path(text) for text in (alone, with_service, "another")}
        return {str(path): key for key, path in lint_envoy.keys(texts).items()}

    before = keys()
    assert len(before) == 3
    monkeypatch.setattr(check_cache.Tree, "digest", lambda *_: "other Python")
    changed = keys()
    assert changed[alone] == before[alone]
    assert changed[with_service] != before[with_service]
    monkeypatch.setattr(check_cache, "environment", lambda _: "another Envoy")
    assert keys()[alone] != before[alone]


def test_an_invalid_configuration_is_found_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "envoy" / "broken.yaml"
    broken.parent.mkdir()
    broken.write_text("static_resources: {listeners: [{name: []}]}", encoding="utf-8")
    monkeypatch.setattr(lint_envoy, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(lint_envoy, "render", lambda _: {broken.read_text(encoding="utf-8"): broken})
    assert [lint_envoy.main(), lint_envoy.main()] == [1, 1]
    broken.write_text("{}", encoding="utf-8")
    assert lint_envoy.main() == 0
    # What is known to be valid is not asked about: were it, this would fail.
    monkeypatch.setattr(lint_envoy, "validate", lambda _: "asked")
    assert lint_envoy.main() == 0
