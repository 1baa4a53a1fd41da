"""What every workflow of the pipeline keeps to, check by check: least rights, an end, commands that run anywhere, and nothing that fails unseen.

actionlint and zizmor look at what GitHub makes of them; this looks at what we want of them.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".github/workflows"
REQUIRED = ("pull-request.yml", "passed")
MOST_MINUTES = 60
# Who may write, and what; everybody else reads.
WRITES: Mapping[tuple[str, str], frozenset[str]] = {
    ("pull-request.yml", "codeql"): frozenset(("security-events",)),
    ("main.yml", "checks"): frozenset(("security-events",)),
    ("main.yml", "publish"): frozenset(("packages", "id-token", "attestations")),
    ("main.yml", "promote"): frozenset(("packages",)),
    ("release.yml", "release"): frozenset(("contents", "packages", "id-token")),
}
# A target of the Makefile, perhaps with which tests; as root, where a Docker engine of its own is started.
_COMMAND = re.compile(r'(?:sudo --preserve-env=REQUIRE_PROGRAMS )?make ([a-z-]+)(?: T=(?:"([^"]+)"|(\S+)))?')
_PINNED = re.compile(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
# What lets a step fail and nobody see it.
_UNSEEN = re.compile(r"\|\||;|\bset \+e\b|\bexit 0\b|&$|^\s*-|\n")
_LENIENT = re.compile(r"continue-on-error|fail-build|exit-zero|soft[_-]fail|allow-fail", re.IGNORECASE)
Job = Mapping[str, Any]


@dataclass(frozen=True)
class Workflow:
    """One of them."""

    name: str
    text: str

    @property
    def document(self) -> Mapping[str, Any]:
        """As YAML."""
        found = yaml.safe_load(self.text)
        return found if isinstance(found, dict) else {}

    @property
    def jobs(self) -> Mapping[str, Job]:
        """By their names."""
        return dict(self.document.get("jobs", {}))


def workflows(folder: Path = FOLDER) -> list[Workflow]:
    """All of them."""
    return [Workflow(path.name, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yml"))]


def _pinned(workflow: Workflow) -> Iterator[str]:
    for use in re.findall(r"uses: (.*)", workflow.text):
        if not use.startswith("./") and not _PINNED.fullmatch(use):
            yield f"{use} is not named by its commit, with its version beside it"


def _rights(workflow: Workflow) -> Iterator[str]:
    if workflow.document.get("permissions") != {}:
        yield "has rights of its own: `permissions: {}`, and each job says which"
    for name, job in workflow.jobs.items():
        rights = job.get("permissions")
        if not isinstance(rights, dict):
            yield f"{name} does not say which rights it has"
            continue
        if bad := {right for right, level in rights.items() if level not in ("read", "write", "none")}:
            yield f"{name} has {', '.join(sorted(bad))} at no level that there is"
        writes = {right for right, level in rights.items() if level == "write"}
        if writes != WRITES.get((workflow.name, name), frozenset()):
            yield f"{name} may write {', '.join(sorted(writes)) or 'nothing'}, which is not what tools/lint_workflows.py says"


def _ends(workflow: Workflow) -> Iterator[str]:
    for name, job in workflow.jobs.items():
        # A job that is a workflow ends when its jobs do.
        if "uses" not in job and not 0 < job.get("timeout-minutes", 0) <= MOST_MINUTES:
            yield f"{name} has no end: timeout-minutes, {MOST_MINUTES} at most"


def _collide(workflow: Workflow) -> Iterator[str]:
    concurrency = workflow.document.get("concurrency")
    if not isinstance(concurrency, dict) or not {"group", "cancel-in-progress"} <= concurrency.keys():
        yield "does not say what becomes of a run when the next comes: concurrency, group and cancel-in-progress"


def _seen(workflow: Workflow) -> Iterator[str]:
    for found in _LENIENT.findall(workflow.text):
        yield f"has {found}: what may fail is no check"
    for name, job in workflow.jobs.items():
        conditions = [job.get("if"), *(step.get("if") for step in job.get("steps", ()))]
        always = [
            condition
            for condition in conditions
            if condition and re.search(r"always\(|failure\(|cancelled\(", str(condition))
        ]
        if always and (workflow.name, name) != REQUIRED:
            yield f"{name} goes on after a failure: {always[0]}"
        yield from (
            f"{name} runs {step['run']!r}, of which a part may fail unseen"
            for step in job.get("steps", ())
            if "run" in step and _UNSEEN.search(str(step["run"]))
        )


def _targets(workflow: Workflow) -> Iterator[str]:
    targets = set(
        " ".join(
            re.findall(r"^([a-z][a-z -]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        ).split()
    )
    for name, job in workflow.jobs.items():
        for step in job.get("steps", ()):
            if "run" not in step or (workflow.name, name) == REQUIRED:
                continue
            command = _COMMAND.fullmatch(step["run"])
            if command is None:
                yield f"{name} runs {step['run']!r}, which is no target of the Makefile"
            elif command[1] not in targets:
                yield f"{name} runs make {command[1]}, which there is not"
            else:
                places = (command[2] or command[3] or "").split()
                yield from (
                    f"{name} tests {place}, which there is not"
                    for place in places
                    if place[0] in "abcdefghijklmnopqrstuvwxyz" and not (ROOT / place).exists()
                )


def _required(workflow: Workflow) -> Iterator[str]:
    file, check = REQUIRED
    if workflow.name != file:
        return
    job = workflow.jobs.get(check, {})
    if set(job.get("needs", ())) != workflow.jobs.keys() - {check}:
        yield f"{check} does not need every other job"
    if re.findall(r"needs\.(\w+)\.result", job.get("env", {}).get("RESULTS", "")) != job.get("needs"):
        yield f"{check} does not look at the result of each that it needs"
    if job.get("if") != "always()":
        yield f"{check} is skipped when a job fails, which GitHub takes for passed: `if: always()`"


def _shards(workflow: Workflow) -> Iterator[str]:
    if workflow.name != REQUIRED[0]:
        return
    matrix = workflow.jobs.get("test", {}).get("strategy", {}).get("matrix", {})
    shards = " ".join(matrix.get("places", ())).split()
    with (ROOT / "pyproject.toml").open("rb") as file:
        places = set(tomllib.load(file)["tool"]["pytest"]["ini_options"]["testpaths"])
    rooms = {f"tests/{path.parent.name}" for path in (ROOT / "tests").glob("*/test_*.py")}
    # tests/delivery has jobs of its own.
    wanted = sorted((places - {"tests"}) | (rooms - {"tests/delivery"}))
    if sorted(shards) != wanted:
        yield f"its shards have {' '.join(sorted(shards))}, and there is {' '.join(wanted)}: each once"


CHECKS: Mapping[str, Callable[[Workflow], Iterator[str]]] = {
    "actions are named by their commit": _pinned,
    "rights are the least": _rights,
    "every job ends": _ends,
    "runs do not collide": _collide,
    "nothing fails unseen": _seen,
    "commands are targets of the Makefile": _targets,
    "the required check needs every job": _required,
    "every test is in one shard": _shards,
}


def faults(found: list[Workflow]) -> dict[str, list[str]]:
    """What is wrong, by the check that says so."""
    said = {
        name: [f"{workflow.name}: {fault}" for workflow in found for fault in check(workflow)]
        for name, check in CHECKS.items()
    }
    return {name: lines for name, lines in said.items() if lines}


def main() -> None:
    """Print every fault under its check; exit 1 when there is one."""
    if found := faults(workflows()):
        sys.exit("\n".join(f"{name}:\n  " + "\n  ".join(lines) for name, lines in found.items()))


if __name__ == "__main__":
    main()
