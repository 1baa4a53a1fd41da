"""Every check that is not a test, side by side; prints what fails and exits 1 when anything does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mesh.topology import SERVICES

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

MIGRATIONS = sorted(
    str(path)
    for service in SERVICES
    if service.database
    for path in (ROOT / service.folder / service.database.schema / "migrations").glob("*.sql")
)
# Older than the rule that an index of a table that exists is built concurrently; a migration is never edited.
_EXEMPT = ("20261126000002_products.sql", "20261126000002_canonical_addresses.sql")

CHECKS: dict[str, list[str]] = {
    "ruff format": [str(BIN / "ruff"), "format", "--check", "--quiet", "."],
    "ruff": [str(BIN / "ruff"), "check", "--quiet", "."],
    "ruff, ignored": [sys.executable, "tools/lint_ignores.py"],
    "encodings": [sys.executable, "tools/lint_encodings.py"],
    "mypy": [sys.executable, "-m", "mypy", "libs", "services", "devstack", "tools", "tests", "conftest.py"],
    "import contracts": [str(BIN / "lint-imports"), "--no-cache"],
    "generated code is current": [sys.executable, "tools/generate.py", "--check"],
    "docs/metrics.md is current": [sys.executable, "tools/metrics_page.py", "--check"],
    "table of services": [sys.executable, "tools/lint_table.py"],
    "buf": [str(BIN / "buf"), "lint", "api"],
    "openapi": [sys.executable, "tools/lint_openapi.py"],
    "asyncapi": [sys.executable, "tools/lint_asyncapi.py"],
    "handlers": [sys.executable, "-m", "devstack.preflight"],
    "dependencies": [sys.executable, "tools/lint_dependencies.py"],
    "mappings": [sys.executable, "tools/lint_mappings.py"],
    "mappings, read": [sys.executable, "tools/lint_unread.py"],
    "patterns": [sys.executable, "tools/lint_patterns.py"],
    "envoy": [sys.executable, "tools/lint_envoy.py"],
    "squawk": [
        str(BIN / "squawk"),
        "--config",
        "tools/squawk.toml",
        *(path for path in MIGRATIONS if not path.endswith(_EXEMPT)),
    ],
    "squawk, older": [
        str(BIN / "squawk"),
        "--config",
        "tools/squawk.toml",
        "--exclude",
        # What the command line excludes stands instead of what the file does.
        "require-concurrent-index-creation,prefer-bigint-over-int,prefer-robust-stmts,require-timeout-settings",
        *(path for path in MIGRATIONS if path.endswith(_EXEMPT)),
    ],
}


def run(name: str) -> tuple[str, bool, str, float]:
    """One check: its name, whether it passed, what it said, how long it took."""
    started = time.perf_counter()
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(CHECKS[name], cwd=ROOT, capture_output=True, encoding="utf-8", env=environment, check=False)
    return name, done.returncode == 0, done.stdout + done.stderr, time.perf_counter() - started


def main() -> int:
    """Run them all, or those named as arguments."""
    names = [name for name in CHECKS if not sys.argv[1:] or any(word in name for word in sys.argv[1:])]
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, passed, output, seconds in pool.map(run, names):
            print(f"{'ok  ' if passed else 'FAIL'} {name} ({seconds:.1f} s)", flush=True)
            if not passed:
                failed += 1
                print(output)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
