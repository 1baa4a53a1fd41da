"""Runs the features of tests/acceptance, writes what came of them as a page, and prints where it is.

The page says what the platform does, in the words of the features; it needs nothing but a browser.

    .venv/bin/python tools/acceptance.py [OPTION OF PYTEST ...]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import msgspec

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / ".backend" / "acceptance.html"


class Result(msgspec.Struct, frozen=True):
    """What came of a step."""

    status: str
    error_message: str = ""


class Step(msgspec.Struct, frozen=True):
    """One sentence, and what came of it."""

    keyword: str
    name: str
    result: Result


class Scenario(msgspec.Struct, frozen=True):
    """One example of what the platform does."""

    name: str
    steps: Sequence[Step]

    @property
    def passed(self) -> bool:
        """Whether it does so."""
        return all(step.result.status == "passed" for step in self.steps)

    @property
    def reason(self) -> str:
        """Why it failed, for whoever mends it."""
        return next((step.result.error_message for step in self.steps if step.result.error_message), "")


class Feature(msgspec.Struct, frozen=True):
    """Scenarios of one matter, of a report in Cucumber's format (pytest-bdd writes it)."""

    uri: str
    name: str
    description: str
    elements: Sequence[Scenario]

    @property
    def passed(self) -> int:
        """How many of its scenarios."""
        return sum(scenario.passed for scenario in self.elements)


def page(features: Sequence[Feature], at: datetime, expected: Mapping[str, int]) -> str:
    """The page as HTML.

    Args:
        features: as they were run.
        at: when, UTC.
        expected: how many scenarios each feature's file has. Those that have not got as far as their first step are in no report.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    passed, total = sum(feature.passed for feature in features), sum(expected.values())
    return environment.get_template("acceptance.html.j2").render(
        features=features, at=at, passed=passed, total=total, seen=sum(len(feature.elements) for feature in features)
    )


def main() -> int:
    """Run, write, print; the status of the run."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        command = [sys.executable, "-m", "pytest", "tests/acceptance", f"--cucumberjson={report}", *sys.argv[1:]]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        if not report.exists():
            return status
        features = msgspec.json.decode(report.read_bytes(), type=list[Feature])
    expected = {file.name: scenarios_in(file) for file in ROOT.glob("tests/acceptance/*.feature")}
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(sorted(features, key=lambda one: one.name), datetime.now(UTC), expected), encoding="utf-8")
    print(f"\n{PAGE}")
    return status


def scenarios_in(file: Path) -> int:
    """How many a feature's file has."""
    return sum(line.strip().startswith("Scenario:") for line in file.read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    sys.exit(main())
