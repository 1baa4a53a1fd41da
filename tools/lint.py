"""Every check that is not a test, side by side; prints what fails and exits 1 when anything does.

    .venv/bin/python tools/lint.py [--all] [WORD ...]     those with one of the words in their name

A check that passed with everything as it is now, the files that it reads, its command and the environment, is not run again
(tools/check_cache.py); --all forgets what has passed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import check_cache
from mesh.topology import SERVICES

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CACHE = ROOT / ".lint_cache"

MIGRATIONS = sorted(
    str(path)
    for service in SERVICES
    if service.database
    for path in (ROOT / service.folder / service.database.schema / "migrations").glob("*.sql")
)
# Older than the rule that an index of a table that exists is built concurrently; a migration is never edited.
_EXEMPT = ("20261126000002_products.sql", "20261126000002_canonical_addresses.sql")
# What a check reads, as a pattern of paths. Whoever imports our code may read whatever that reads: everything.
_EVERYTHING = ""
_PYTHON = r"\.pyi?$|(^|/)(pyproject\.toml|py\.typed)$"
_NO_TESTS = r"^(?!tests/)"


@dataclass(frozen=True)
class Check:
    """A command, and the files that its outcome depends on; without, it is run each time (it is as fast as its digest)."""

    command: tuple[str, ...]
    reads: str | None = None


# The longest first: what is short fills the gaps.
CHECKS: dict[str, Check] = {
    # Not with --num-workers: as of 2.4.1 it ends with an internal error now and then, and two cores have other checks to do.
    "mypy": Check(
        (sys.executable, "-m", "mypy", "libs", "services", "devstack", "tools", "tests", "conftest.py"), _PYTHON
    ),
    "envoy": Check((sys.executable, "tools/lint_envoy.py"), _NO_TESTS),
    "generated code is current": Check((sys.executable, "tools/generate.py", "--check"), _NO_TESTS),
    "dependencies": Check((sys.executable, "tools/lint_dependencies.py"), _PYTHON),
    "patterns": Check((sys.executable, "tools/lint_patterns.py"), _EVERYTHING),
    "encodings": Check((sys.executable, "tools/lint_encodings.py"), _PYTHON),
    "mappings, read": Check((sys.executable, "tools/lint_unread.py"), _EVERYTHING),
    "openapi": Check((sys.executable, "tools/lint_openapi.py"), _EVERYTHING),
    "handlers": Check((sys.executable, "-m", "devstack.preflight"), _EVERYTHING),
    "docs/metrics.md is current": Check((sys.executable, "tools/metrics_page.py", "--check"), _NO_TESTS),
    "ruff, ignored": Check((sys.executable, "tools/lint_ignores.py"), _PYTHON),
    "mappings": Check((sys.executable, "tools/lint_mappings.py"), _EVERYTHING),
    "import contracts": Check((str(BIN / "lint-imports"), "--no-cache"), _PYTHON),
    "table of services": Check((sys.executable, "tools/lint_table.py"), _EVERYTHING),
    "what documents name is there": Check((sys.executable, "tools/lint_claims.py"), _EVERYTHING),
    "asyncapi": Check((sys.executable, "tools/lint_asyncapi.py"), _EVERYTHING),
    "secrets": Check((sys.executable, "tools/lint_secrets.py"), _EVERYTHING),
    "machine code has an owner": Check(
        (sys.executable, "tools/lint_wheels.py"), r"^(.*\.lock|docs/supply-chain\.md|tools/lint_wheels\.py)$"
    ),
    "licences": Check((sys.executable, "tools/lint_licences.py"), r"^(.*\.lock|tools/lint_licences\.py)$"),
    "buf": Check((str(BIN / "buf"), "lint", "api")),
    "workflows": Check(
        (str(BIN / "zizmor"), "--offline", "--no-progress", "--quiet", "--persona", "auditor", ".github")
    ),
    "workflows, as GitHub reads them": Check((str(BIN / "actionlint"), "-no-color")),
    "workflows, our own rules": Check(
        (sys.executable, "tools/lint_workflows.py"),
        r"^(\.github/|tests/|Makefile$|pyproject\.toml$|tools/lint_workflows\.py$)",
    ),
    "ruff format": Check((str(BIN / "ruff"), "format", "--check", "--quiet", ".")),
    "ruff": Check((str(BIN / "ruff"), "check", "--quiet", ".")),
    "squawk": Check(
        (
            str(BIN / "squawk"),
            "--config",
            "tools/squawk.toml",
            *(path for path in MIGRATIONS if not path.endswith(_EXEMPT)),
        )
    ),
    "squawk, older": Check(
        (
            str(BIN / "squawk"),
            "--config",
            "tools/squawk.toml",
            "--exclude",
            # What the command line excludes stands instead of what the file does.
            "require-concurrent-index-creation,prefer-bigint-over-int,prefer-robust-stmts,require-timeout-settings",
            *(path for path in MIGRATIONS if path.endswith(_EXEMPT)),
        )
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What became of a check: `seconds` is None when it need not be run."""

    name: str
    passed: bool
    output: str
    seconds: float | None

    def __str__(self) -> str:
        """Its line."""
        how = "as before" if self.seconds is None else f"{self.seconds:.1f} s"
        return f"{'ok  ' if self.passed else 'FAIL'} {self.name} ({how})"


class Runner:
    """Runs checks of the repository at `root`, but those that have passed before with everything as it is."""

    def __init__(self, root: Path, passed: check_cache.Passed) -> None:
        self._root = root
        self._passed = passed
        self._tree = check_cache.Tree(root)

    def run(self, name: str, check: Check) -> Outcome:
        """One check."""
        digest = self._digest(check, self._tree)
        if digest is not None and self._passed.has(name, digest):
            return Outcome(name, passed=True, output="", seconds=None)
        started = time.perf_counter()
        environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            check.command, cwd=self._root, capture_output=True, encoding="utf-8", env=environment, check=False
        )
        passed = done.returncode == 0
        # What is recorded is what was there all the time, read anew: somebody may have gone on writing.
        if passed and digest is not None and digest == self._digest(check, check_cache.Tree(self._root)):
            self._passed.add(name, [digest])
        return Outcome(name, passed, done.stdout + done.stderr, time.perf_counter() - started)

    def _digest(self, check: Check, tree: check_cache.Tree) -> str | None:
        """Of everything that the outcome depends on; None when that cannot be told."""
        if check.reads is None:
            return None
        try:
            return check_cache.key(check.command, tree.digest(check.reads), check_cache.environment(self._root))
        except (OSError, subprocess.CalledProcessError):
            return None


def main() -> int:
    """Run them all, or those named as arguments."""
    words = [word for word in sys.argv[1:] if word != "--all"]
    names = [name for name in CHECKS if not words or any(word in name for word in words)]
    if "--all" in sys.argv[1:]:
        shutil.rmtree(CACHE, ignore_errors=True)
    runner = Runner(ROOT, check_cache.Passed(CACHE))
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for outcome in pool.map(lambda name: runner.run(name, CHECKS[name]), names):
            print(outcome, flush=True)
            if not outcome.passed:
                failed += 1
                print(outcome.output)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
