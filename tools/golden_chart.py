"""Writes what the chart renders to for each of its value sets (tests/delivery/golden) and shows what has changed; `--check` only shows."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import delivery

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests/delivery/golden"


def main() -> int:
    """Show the differences and write; with --check, 1 when there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail when something differs")
    check = parser.parse_args().check
    delivery.prepare()
    sys.path.insert(0, str(ROOT / "tests"))
    import charts
    from goldens import differences

    differing = False
    for name, values in charts.VALUES.items():
        path = GOLDEN / f"{name}.yaml"
        rendered = charts.golden(charts.render(values))
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if patch := differences(before, rendered, path):
            differing = True
            print(patch)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(rendered, encoding="utf-8")
    for path in GOLDEN.glob("*.yaml"):
        if path.stem not in charts.VALUES:
            differing = True
            print(f"{path.relative_to(ROOT)} is of no value set")
            if not check:
                path.unlink()
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
