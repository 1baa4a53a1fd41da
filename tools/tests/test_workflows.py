"""The pipeline keeps to its rules, and each check finds what it is for; which commands a run comes to, tests/delivery/test_pipeline.py says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from lint_workflows import CHECKS, ROOT, Workflow, faults, workflows

BIN = Path(sys.executable).parent
TEXTS = {workflow.name: workflow.text for workflow in workflows()}
CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
# A change of a workflow, and the check that has to find it.
MUTANTS: dict[str, tuple[str, str, str, str]] = {
    "an action by its tag": ("main.yml", CHECKOUT, "actions/checkout@v7", "actions are named by their commit"),
    "a commit without its version": ("main.yml", CHECKOUT, CHECKOUT[:-8], "actions are named by their commit"),
    "a short commit": ("main.yml", CHECKOUT, "actions/checkout@3d3c42e # v7.0.1", "actions are named by their commit"),
    "every right": ("main.yml", "permissions: {}\n", "permissions: write-all\n", "rights are the least"),
    "the default rights": ("main.yml", "permissions: {}\n", "", "rights are the least"),
    "a job with every right": (
        "pull-request.yml",
        "    permissions: {contents: read}\n",
        "    permissions: write-all\n",
        "rights are the least",
    ),
    "a job that does not say": ("pull-request.yml", "    permissions: {contents: read}\n", "", "rights are the least"),
    "a job that writes": (
        "pull-request.yml",
        "    permissions: {contents: read}\n",
        "    permissions: {contents: write}\n",
        "rights are the least",
    ),
    "a job that writes more": (
        "main.yml",
        "    permissions:\n      contents: read\n      packages: write # images",
        "    permissions:\n      contents: write\n      packages: write # images",
        "rights are the least",
    ),
    "no end": ("pull-request.yml", "    timeout-minutes: 15\n", "", "every job ends"),
    "a late end": ("pull-request.yml", "    timeout-minutes: 15\n", "    timeout-minutes: 360\n", "every job ends"),
    "runs beside each other": (
        "main.yml",
        "concurrency:\n  group: main\n  cancel-in-progress: false\n",
        "",
        "runs do not collide",
    ),
    "a step that may fail": (
        "pull-request.yml",
        "      - run: make lint\n",
        "      - run: make lint\n        continue-on-error: true\n",
        "nothing fails unseen",
    ),
    "a job that may fail": (
        "pull-request.yml",
        "    timeout-minutes: 15\n",
        "    timeout-minutes: 15\n    continue-on-error: true\n",
        "nothing fails unseen",
    ),
    "a failure that is swallowed": ("pull-request.yml", "run: make lint\n", "run: make lint || true\n", "nothing fails unseen"),
    "a failure that is passed over": ("pull-request.yml", "run: make lint\n", "run: make lint; true\n", "nothing fails unseen"),
    "a failure that make ignores": ("pull-request.yml", "run: make lint\n", "run: make --ignore-errors lint\n", "commands are targets of the Makefile"),
    "a step after a failure": (
        "pull-request.yml",
        "      - run: make lint\n",
        "      - run: make lint\n        if: always()\n",
        "nothing fails unseen",
    ),
    "a scan that finds and does not fail": (
        "pull-request.yml",
        "severity-cutoff: high",
        "fail-build: false, severity-cutoff: high",
        "nothing fails unseen",
    ),
    "a command of its own": ("pull-request.yml", "run: make lint\n", "run: .venv/bin/ruff check\n", "commands are targets of the Makefile"),
    "a target that there is not": ("pull-request.yml", "run: make lint\n", "run: make lints\n", "commands are targets of the Makefile"),
    "a test that there is not": (
        "pull-request.yml",
        "tests/delivery/test_chart.py",
        "tests/delivery/test_charts.py",
        "commands are targets of the Makefile",
    ),
    "a check that is not required": ("pull-request.yml", "needs: [lint, ", "needs: [", "the required check needs every job"),
    "a check whose result nobody looks at": (
        "pull-request.yml",
        "        ${{ needs.known.result }}\n",
        "",
        "the required check needs every job",
    ),
    "a required check that is skipped": ("pull-request.yml", "    if: always()\n", "", "the required check needs every job"),
    "tests that nobody runs": ("pull-request.yml", "          - tests/network\n", "", "every test is in one shard"),
    "tests that two run": ("pull-request.yml", "          - devstack\n", "          - devstack tests/network\n", "every test is in one shard"),
}  # fmt: skip


def test_ours_have_no_fault() -> None:
    assert len(TEXTS) == 5
    assert faults(workflows()) == {}


@pytest.mark.parametrize("name", MUTANTS)
def test_each_fault_is_found_by_its_check(name: str) -> None:
    file, before, after, check = MUTANTS[name]
    assert before in TEXTS[file]
    mutant = Workflow(file, TEXTS[file].replace(before, after, 1))
    # A step that is spoilt is also no target any more.
    assert check in faults([mutant])


def test_every_check_has_a_fault_that_it_finds() -> None:
    assert {check for *_, check in MUTANTS.values()} == CHECKS.keys()


@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped", ""])
def test_the_required_check_fails_unless_all_have_passed(result: str) -> None:
    (step,) = Workflow("", TEXTS["pull-request.yml"]).jobs["passed"]["steps"]

    def passes(*results: str) -> bool:
        variables = {"RESULTS": " ".join(results), "DEPENDENCIES": "success"}
        return subprocess.run(["/bin/sh", "-c", step["run"]], env=variables, check=False).returncode == 0

    assert passes(*["success"] * 8)
    assert not any(passes(*["success"] * place, result, *["success"] * (7 - place)) for place in range(8))


def workflow(directory: Path, text: str) -> Path:
    made = directory / ".github/workflows/workflow.yml"
    made.parent.mkdir(parents=True)
    made.write_text(text, encoding="utf-8")
    return made


def test_zizmor_sees_what_is_dangerous(tmp_path: Path) -> None:
    """That `make lint` has it say nothing means something."""
    text = TEXTS["pull-request.yml"].replace("  pull_request:\n", "  pull_request_target:\n", 1)
    made = workflow(tmp_path, text.replace("$PLACES", "${{ github.event.pull_request.title }}"))
    command = [str(BIN / "zizmor"), "--offline", "--no-progress", str(made)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode != 0
    for audit in ("dangerous-triggers", "template-injection"):
        assert audit in done.stdout


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("needs: publish\n", "needs: publishing\n", "publishing"),
        ("steps.publish.outputs", "steps.publishing.outputs", "publishing"),
        ("runs-on: ubuntu-24.04\n", "runs-on: ubuntu-24.4\n", "ubuntu-24.4"),
        ("timeout-minutes: 30\n", "timeout-minute: 30\n", "timeout-minute"),
    ],
)
def test_actionlint_sees_what_github_would_not_understand(tmp_path: Path, before: str, after: str, said: str) -> None:
    text = TEXTS["main.yml"].replace(
        "    uses: ./.github/workflows/pull-request.yml", f"    uses: {ROOT.name}/x/.github/workflows/y.yml@main"
    )
    assert before in text
    made = workflow(tmp_path, text.replace(before, after))
    done = subprocess.run([BIN / "actionlint", "-no-color", made], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert said in done.stdout
