"""The pipeline, run by act on this machine: which commands a pull request, a push to main and a tag run, and what a failure keeps from running.

act is not GitHub: whoever is another's action here says that it was used, and `make` says what it was asked for. What the commands do, the other
tests and `make` itself say; that conditions, matrices, needs, outputs and variables lead to them, is seen here.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import delivery
import lint_workflows
import pytest
from lint_workflows import ROOT

# Notes what it was asked for; fails where it is told to. Of `make publish`, the outputs.
_MAKE = """#!/bin/sh
echo "$GITHUB_JOB: make $*" >> "$NOTES"
case " $* " in *" $FAILING "*) exit 1;; esac
if [ "$1" = publish ]; then echo "registry=ghcr.io/us/shop\nservices=sha256:5\noperations=sha256:0" >> "$GITHUB_OUTPUT"; fi
"""
_SUDO = """#!/bin/sh
shift
exec "$@"
"""
_ACTION = """name: stand-in
inputs: {{subject-name: {{}}, subject-digest: {{}}, sbom-path: {{}}, image: {{}}}}
runs:
  using: composite
  steps:
    - run: |
        echo "$GITHUB_JOB: uses {name} $WITH" >> "$NOTES"
      shell: sh
      env:
        WITH: "${{{{ inputs.image }}}}${{{{ inputs.subject-name }}}} ${{{{ inputs.subject-digest }}}} ${{{{ inputs.sbom-path }}}}"
"""


@dataclass(frozen=True)
class Run:
    """What became of one."""

    passed: bool
    # What its jobs have done, in order.
    notes: list[str]
    results: dict[str, set[str]]
    output: str

    def of(self, job: str) -> list[str]:
        """What a job has run, and its actions but those that every job has."""
        mine = [note.partition(": ")[2] for note in self.notes if note.startswith(f"{job}: ")]
        return [
            re.sub(" +", " ", note).strip()
            for note in mine
            if not re.match(r"uses (actions/cache|actions/checkout) ", note)
        ]


class Pipeline:
    """A repository that has our workflows and nothing else."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.root = place / "repository"
        shutil.copytree(ROOT / ".github", self.root / ".github")
        self._programs = place / "programs"
        self._programs.mkdir()
        for name, script in (("make", _MAKE), ("sudo", _SUDO)):
            (self._programs / name).write_text(script, encoding="utf-8")
            (self._programs / name).chmod(0o755)
        self._local: list[str] = []
        used = {
            use for workflow in lint_workflows.workflows() for use in re.findall(r"uses: ([^.\s]\S+)", workflow.text)
        }
        for use in used:
            name, _, commit = use.partition("@")
            owner, repository, *below = name.split("/")
            stub = place / "actions" / owner / repository
            (stub / "/".join(below)).mkdir(parents=True, exist_ok=True)
            (stub / "/".join(below) / "action.yml").write_text(_ACTION.format(name=name), encoding="utf-8")
            self._local += ["--local-repository", f"{owner}/{repository}@{commit}={stub}"]
        self.git("init", "--quiet", "--initial-branch", "main")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "test: the pipeline")
        self.git("tag", "v1.2.3")

    def git(self, *arguments: str) -> None:
        someone = ["-c", "user.name=a", "-c", "user.email=a@shop.example"]
        subprocess.run(["git", *someone, *arguments], cwd=self.root, check=True)

    def run(
        self,
        event: str,
        workflow: str,
        payload: Mapping[str, object],
        failing: str = "nothing",
        variables: Sequence[str] = (),
    ) -> Run:
        """One run of a workflow by an event."""
        notes, event_file = self._place / "notes", self._place / "event.json"
        notes.write_text("", encoding="utf-8")
        event_file.write_text(json.dumps(dict(payload)), encoding="utf-8")
        command = [
            str(delivery.BIN / "act"), event, "--json", "--workflows", f".github/workflows/{workflow}", "--eventpath", str(event_file),
            "--platform", "ubuntu-24.04=-self-hosted", "--action-offline-mode", "--concurrent-jobs", "2", *self._local,
            *(part for variable in variables for part in ("--var", variable)),
        ]  # fmt: skip
        environment = {
            "HOME": str(self._place / "home"),
            "PATH": f"{self._programs}:/usr/local/bin:/usr/bin:/bin",
            "NOTES": str(notes),
            "FAILING": failing,
        }
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, encoding="utf-8", check=False
        )
        results: dict[str, set[str]] = {}
        for line in done.stdout.splitlines():
            if line.startswith("{") and "jobResult" in (said := json.loads(line)):
                results.setdefault(said["jobID"], set()).add(said["jobResult"])
        return Run(
            done.returncode == 0,
            notes.read_text(encoding="utf-8").splitlines(),
            results,
            done.stdout[-4000:] + done.stderr,
        )


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(tmp_path_factory.mktemp("pipeline"))


PULL_REQUEST = {"pull_request": {"base": {"ref": "main"}, "head": {"ref": "change"}}}
MAIN, TAG = {"ref": "refs/heads/main"}, {"ref": "refs/tags/v1.2.3"}
STAGING = ("STAGING_URL=https://staging.shop.example",)
PRODUCTION = ("PRODUCTION_URL=https://shop.example",)


def test_a_pull_request_runs_every_check_and_passes(pipeline: Pipeline) -> None:
    run = pipeline.run("pull_request", "pull-request.yml", PULL_REQUEST)
    assert run.passed, run.output
    assert run.of("lint") == ["make lint"]
    assert run.of("contracts") == ["make contracts"]
    assert run.of("known") == ["make secrets", "make audit"]
    assert run.of("images") == [
        "make images",
        "uses anchore/scan-action backend-services:latest",
        "uses anchore/scan-action backend-operations:latest",
        "make sbom",
        "uses actions/upload-artifact",
    ]
    (shards,) = (
        job["strategy"]["matrix"]["places"]
        for workflow in lint_workflows.workflows()
        for name, job in workflow.jobs.items()
        if (workflow.name, name) == ("pull-request.yml", "test")
    )
    assert sorted(run.of("test")) == sorted(
        ["make programs"] * len(shards) + [f"make test T={places} -n 2" for places in shards]
    )
    assert run.of("delivery") == [
        "make test-delivery T=tests/delivery/test_chart.py tests/delivery/test_pipeline.py tests/delivery/test_release.py"
    ]
    assert (
        sorted(run.of("codeql")) == ["uses github/codeql-action/analyze"] * 3 + ["uses github/codeql-action/init"] * 3
    )
    assert run.of("dependencies") == ["uses actions/dependency-review-action"]
    assert run.results["passed"] == {"success"}
    # No check is there that this does not know.
    assert (
        run.results.keys()
        == lint_workflows.Workflow(
            "", (ROOT / ".github/workflows/pull-request.yml").read_text(encoding="utf-8")
        ).jobs.keys()
    )


@pytest.mark.parametrize("failing", ["lint", "contracts", "audit", "sbom", "test"])
def test_a_check_that_fails_fails_the_required_one(pipeline: Pipeline, failing: str) -> None:
    run = pipeline.run("pull_request", "pull-request.yml", PULL_REQUEST, failing)
    assert not run.passed
    assert run.results["passed"] == {"failure"}, run.output


def test_main_is_built_once_tried_on_staging_and_then_promoted(pipeline: Pipeline) -> None:
    run = pipeline.run("push", "main.yml", MAIN, variables=STAGING)
    assert run.passed, run.output
    assert run.of("compose") == ["make test-delivery T=tests/delivery/test_images.py tests/delivery/test_compose.py"]
    services, operations = "ghcr.io/us/shop/backend-services sha256:5", "ghcr.io/us/shop/backend-operations sha256:0"
    assert run.of("publish") == [
        "uses docker/login-action",
        "uses sigstore/cosign-installer",
        "make images",
        "make publish",
        "make sign",
        "make sbom",
        f"uses actions/attest {services}",
        f"uses actions/attest {operations}",
        f"uses actions/attest {services} dist/sbom/backend-services.cdx.json",
        f"uses actions/attest {operations} dist/sbom/backend-operations.cdx.json",
        "make publish-chart",
    ]
    assert run.of("staging") == ["uses docker/login-action", "make deploy", "make smoke"]
    assert run.of("promote") == ["uses docker/login-action", "make promote"]
    order = [note.partition(": ")[0] for note in run.notes]
    assert order.index("publish") > max(
        place for place, job in enumerate(order) if job in ("lint", "test", "known", "compose")
    )
    assert order[-1] == "promote"


@pytest.mark.parametrize(
    ("failing", "reached"),
    [
        ("lint", ()),
        ("images", ()),
        ("sign", ("publish",)),
        ("deploy", ("publish", "staging")),
        ("smoke", ("publish", "staging")),
    ],
)
def test_what_fails_goes_no_further(pipeline: Pipeline, failing: str, reached: Sequence[str]) -> None:
    run = pipeline.run("push", "main.yml", MAIN, failing, STAGING)
    assert not run.passed
    # `make images` is one of the checks as well, and nothing is published that has not passed them.
    assert [job for job in ("publish", "staging", "promote") if run.of(job)] == list(reached), run.output


def test_without_a_staging_nothing_is_promoted(pipeline: Pipeline) -> None:
    run = pipeline.run("push", "main.yml", MAIN)
    assert run.passed, run.output
    assert run.of("publish")
    assert run.of("staging") == run.of("promote") == []


def test_a_release_names_what_was_signed_and_brings_it_to_production(pipeline: Pipeline) -> None:
    run = pipeline.run("push", "release.yml", TAG, variables=PRODUCTION)
    assert run.passed, run.output
    steps = ["tag", "verify", "promote", "publish-chart", "changelog", "wheels", "sbom", "release"]
    assert run.of("release")[2:] == [f"make {step}" for step in steps]
    assert [step for step in run.of("production") if step.startswith("make")] == [
        "make verify",
        "make deploy",
        "make smoke",
    ]


@pytest.mark.parametrize("failing", ["tag", "verify"])
def test_what_is_not_signed_or_no_version_is_not_released(pipeline: Pipeline, failing: str) -> None:
    run = pipeline.run("push", "release.yml", TAG, failing, PRODUCTION)
    assert not run.passed
    assert run.notes[-1] == f"release: make {failing}"


def test_a_rollback_and_the_weekly_checks_run_one_command_each(pipeline: Pipeline) -> None:
    run = pipeline.run("workflow_dispatch", "rollback.yml", {"inputs": {"environment": "staging"}})
    assert run.of("rollback") == ["make rollback"], run.output
    run = pipeline.run("schedule", "weekly.yml", {})
    assert (run.of("known"), run.of("sidecars")) == (["make audit"], ["make sidecars"]), run.output
