"""The pipeline: what it runs is what anybody runs, with no more rights than it needs, and its one required check can fail."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}
JOBS: dict[str, dict[str, Any]] = {
    f"{name}: {job}": found for name, text in TEXTS.items() for job, found in yaml.safe_load(text)["jobs"].items()
}
PULL_REQUEST = yaml.safe_load(TEXTS["pull-request.yml"])["jobs"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("name", JOBS)
def test_a_job_has_an_end_and_says_its_rights(name: str) -> None:
    job = JOBS[name]
    assert 0 < job["timeout-minutes"] <= 30
    assert set(job["permissions"].values()) <= {"read"}


@pytest.mark.parametrize("name", TEXTS)
def test_a_workflow_has_no_rights_of_its_own_and_names_actions_by_commit(name: str) -> None:
    assert yaml.safe_load(TEXTS[name])["permissions"] == {}
    assert yaml.safe_load(TEXTS[name])["concurrency"]
    used = re.findall(r"uses: (.*)", TEXTS[name])
    assert used
    assert [use for use in used if not re.fullmatch(r"[\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use)] == []


@pytest.mark.parametrize("name", [name for name in JOBS if not name.endswith(": passed")])
def test_what_a_job_runs_is_a_target_of_the_makefile(name: str) -> None:
    for step in JOBS[name]["steps"]:
        if "run" in step:
            command = re.fullmatch(r'make ([a-z-]+)( T=("\$PLACES -n 2"|[a-z_/.]+))?', step["run"])
            assert command is not None, step["run"]
            assert command[1] in TARGETS
            assert command[3] in (None, '"$PLACES -n 2"') or (ROOT / command[3]).exists()


def test_every_test_is_in_one_shard() -> None:
    shards = " ".join(PULL_REQUEST["test"]["strategy"]["matrix"]["places"]).split()
    assert len(shards) == len(set(shards))
    with (ROOT / "pyproject.toml").open("rb") as file:
        places = set(tomllib.load(file)["tool"]["pytest"]["ini_options"]["testpaths"])
    rooms = {f"tests/{path.parent.name}" for path in (ROOT / "tests").glob("*/test_*.py")}
    # These have a job of their own.
    assert set(shards) == (places - {"tests"}) | (rooms - {"tests/delivery"})
    assert not list((ROOT / "tests").glob("test_*.py"))


def test_the_required_check_needs_every_job() -> None:
    assert set(PULL_REQUEST["passed"]["needs"]) == set(PULL_REQUEST) - {"passed"}
    assert PULL_REQUEST["passed"]["if"] == "always()"


@pytest.mark.parametrize(
    ("results", "passes"),
    [
        ("success success success success", True),
        ("success failure success success", False),
        ("success cancelled success success", False),
        ("success success skipped success", False),
        ("", False),
    ],
)
def test_the_required_check_fails_unless_all_have_passed(results: str, *, passes: bool) -> None:
    (step,) = PULL_REQUEST["passed"]["steps"]
    variables = {"RESULTS": results, "EXPECTED": "success success success success"}
    done = subprocess.run(["/bin/sh", "-c", step["run"]], env=variables, check=False)
    assert (done.returncode == 0) == passes


def test_zizmor_sees_what_is_dangerous(tmp_path: Path) -> None:
    """That `make lint` has it say nothing means something."""
    text = TEXTS["pull-request.yml"].replace("  pull_request:\n", "  pull_request_target:\n", 1)
    text = text.replace("$PLACES", "${{ github.event.pull_request.title }}")
    workflow = tmp_path / ".github/workflows/dangerous.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text(text, encoding="utf-8")
    command = [str(ROOT / ".venv/bin/zizmor"), "--offline", "--no-progress", str(workflow)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode != 0
    for audit in ("dangerous-triggers", "template-injection"):
        assert audit in done.stdout
